"""How a DICOM segmentation describes the labels of a bundle."""

from collections.abc import Sequence

from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from pydicom.sr.codedict import codes

# property category and type (DICOM PS3.16, CID 7150 and 7151) by label name; a name that is not here is a "Lesion",
# because a code that says more than the label would be wrong in an archive for good
_HIPPOCAMPUS = (codes.SCT.AnatomicalStructure, codes.SCT.Hippocampus)
_NEOPLASM = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm)
_LESION = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion)
_CODES = {"anterior": _HIPPOCAMPUS, "posterior": _HIPPOCAMPUS, "netc": _NEOPLASM, "et": _NEOPLASM}


def describe_segments(labels: Sequence[str], algorithm: str, version: str) -> list[SegmentDescription]:
    """One description per label 1, 2, …, with the bundle's name and version as those of the algorithm."""
    descriptions = []
    for label in labels:
        category, kind = _CODES.get(label.lower(), _LESION)
        description = SegmentDescription(
            segment_label=label,
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_name=algorithm,
            algorithm_family=codes.DCM.ArtificialIntelligence,
            algorithm_version=version,
        )
        descriptions.append(description)
    return descriptions
