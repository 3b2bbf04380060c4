"""Judge a DICOM segmentation inside the Deploy environment; the test has no DICOM library of its own.

The label map is computed once more without the App SDK: pixels from MONAI's ITK reader, transforms, network and inferer
straight from the bundle. Prints JSON.
"""

import json
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImage, SaveImaged

from dcd_ext.inference.dicom import check_series
from deploy.dicom.geometry import series_grid, series_voxels


def expected_labels(bundle: Path, image: MetaTensor) -> np.ndarray:
    """Label map (X, Y, Z) of an image (C, X, Y, Z)."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    before, after = (parser.get_parsed_content(key).transforms for key in ("preprocessing", "postprocessing"))
    data = {"image": image}
    for transform in before[2:]:  # not the loader and what moves its channels
        data = transform(data)
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    for transform in after:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    return data["pred"][0].numpy().astype(np.uint8)


def main(bundle: Path, file: Path, folders: list[Path]) -> dict:
    """Compare; the folders hold one series each, in channel order."""
    images = [LoadImage(ensure_channel_first=True)(folder) for folder in folders]
    studies = [check_series([pydicom.dcmread(f) for f in folder.iterdir()], folder.name) for folder in folders]
    grid = series_grid(studies[0])
    pixels = max(
        float(np.abs(series_voxels(s, "judged") - i[0].numpy()).max()) for s, i in zip(studies, images, strict=True)
    )
    affine = float(np.abs(grid.affine - images[0].affine.numpy()).max())
    # the same numbers to the last bit: on an oblique grid resampling starts elsewhere after the slightest change
    labels = expected_labels(bundle, MetaTensor(torch.cat(images).as_tensor(), affine=torch.tensor(grid.affine)))
    segmentation = highdicom.seg.segread(file)
    found = segmentation.get_pixels_by_source_instance(
        [dataset.SOPInstanceUID for dataset in studies[0]], combine_segments=True, assert_missing_frames_are_empty=True
    ).transpose(2, 1, 0)
    return {
        "modality": segmentation.Modality,
        "segments": [item.SegmentLabel for item in segmentation.SegmentSequence],
        "types": [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in segmentation.SegmentSequence],
        "description": segmentation.SeriesDescription,
        "same_study": segmentation.StudyInstanceUID == studies[0][0].StudyInstanceUID,
        "pixel_difference": pixels,
        "affine_difference_mm": affine,
        "voxels": int(labels.size),
        "wrong_voxels": int((found != labels).sum()),
        "labels": np.unique(labels).tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(text) for text in sys.argv[3:]])))
