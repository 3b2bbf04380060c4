"""The application: load DICOM, choose and stack series, run a bundle, write a DICOM segmentation."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_utils import ModelInfo
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from pydicom.sr.codedict import codes

from dcd_ext.bundles.folder import BundleFolder
from deploy.dicom.bundle import read_labels, read_origin
from deploy.dicom.operators import ChannelSelector, ChannelStack

# property category and type (DICOM PS3.16, CID 7150 and 7151) by label name; a name that is not here is a "Lesion",
# because a code that says more than the label would be wrong in an archive for good
_HIPPOCAMPUS = (codes.SCT.AnatomicalStructure, codes.SCT.Hippocampus)
_NEOPLASM = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm)
_LESION = (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion)
_CODES = {"anterior": _HIPPOCAMPUS, "posterior": _HIPPOCAMPUS, "netc": _NEOPLASM, "et": _NEOPLASM}


class SegmentationApp(Application):
    """DICOM in, DICOM SEG out.

    ``patterns`` has a regular expression of the series description per channel, in channel order; ``source`` holds one
    study as DICOM files, at any depth; ``output`` receives the segmentation.
    """

    def __init__(self, bundle: BundleFolder, patterns: Mapping[str, str], source: Path, output: Path) -> None:
        # first of all: holoscan's destructor fails on an application that an error left half made
        super().__init__([sys.executable, "app"])
        self.bundle = bundle
        self.patterns = patterns
        self.source = source
        self.output = output
        self.labels = read_labels(bundle)
        self.origin = read_origin(bundle)

    def compose(self) -> None:
        name, (authors, version) = self.bundle.name, self.origin
        # that nothing was loaded is said by the selector, in a line
        once = CountCondition(self, 1)
        load = DICOMDataLoaderOperator(self, once, input_folder=self.source, must_load=False, name="load")
        choose = ChannelSelector(self, patterns=self.patterns, source=self.source, name="choose")
        stack = ChannelStack(self, name="stack")
        # not dcd_ext.predict.Predictor, which begins with files: here the voxels are in memory, read by the SDK
        infer = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            # without a model of its own the context would pick up any folder "models" of the working directory
            app_context=AppContext({"model": str(self.bundle.root / "models" / "none")}),
            bundle_path=self.bundle.root,
            bundle_config_names=BundleConfigNames(config_names=["inference"]),
            name="infer",
        )
        write = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=_describe_segments(self.labels, name, version),
            model_info=ModelInfo(authors, name, version, ""),
            custom_tags={"SeriesDescription": f"{name} (AI, not for diagnosis)"[:64]},
            output_folder=self.output,
            name="write",
        )
        self.add_flow(load, choose, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(choose, stack, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(stack, infer, {("image", "image")})
        self.add_flow(choose, write, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(infer, write, {("pred", "seg_image")})


def _describe_segments(labels: Sequence[str], algorithm: str, version: str) -> list[SegmentDescription]:
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
