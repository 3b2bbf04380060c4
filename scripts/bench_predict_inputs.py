"""What scripts/bench_predict.sh measures: images, bundles with INT8, a standalone folder and nnU-Net's twin.

Usage: python -m scripts.bench_predict_inputs DATA STUDENT WORK

What is there already is kept. The twin is the network of a bundle as a folder that stock nnU-Net runs, to time both
with the same weights. ``dcd export-nnunet`` makes such folders of bundles that were imported from nnU-Net and have its
plans. These plans are made up: axes in the bundle's order, its spacing, patch and normalisation, nnU-Net's resampling.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import show_plainly
from dcd_ext.io import make_folder, write_json
from dcd_ext.predict.quantize import export_int8
from dcd_ext.predict.standalone import write_standalone

_TEACHER = Path("bundles/hippocampus_segmentation_teacher")
_SELECTION_FOLD = 1
# arguments of the network that nnU-Net gives itself, and those it reads as names
_OWN = ("_target_", "input_channels", "num_classes", "deep_supervision")
_NAMES = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "nonlin": "torch.nn.LeakyReLU",
    "dropout_op": None,
    "dropout_op_kwargs": None,
}


def copy_images(data: Path, work: Path) -> None:
    """The first test cases, named as nnU-Net wants them, and their labels."""
    cases = json.loads((data / "datalist.json").read_text("utf-8"))["test"][:20]
    for count in (1, 20):
        images, labels = make_folder(work / f"{count}"), make_folder(work / f"{count}_labels")
        for case in cases[:count]:
            shutil.copy(data / case["image"], images / f"{case['case']}_0000.nii.gz")
            shutil.copy(data / case["label"], labels / f"{case['case']}.nii.gz")


def staged(root: Path, folder: Path) -> Path:
    """A copy of a bundle below ``folder``, or the one made before; with random weights if it has none."""
    target = folder / root.name
    if target.is_dir():
        return target
    shutil.copytree(root, target, ignore=shutil.ignore_patterns("eval"))
    if not any((target / name).is_file() for name in ("models/model.pt", "pipeline.json")):
        torch.manual_seed(0)
        network = BundleFolder(target).parser().get_parsed_content("network_def")
        torch.save(network.state_dict(), make_folder(target / "models") / "model.pt")
    return target


def with_int8(root: Path, data: Path, work: Path) -> Path:
    """A copy of a bundle with an INT8 network; random weights keep no bound."""
    bundle = staged(root, work)
    if not (bundle / "models" / "int8").exists():
        export_int8(bundle, data, _SELECTION_FOLD, 0.005)
    return bundle


def twin_plans(bundle: BundleFolder) -> dict[str, Any]:
    """What nnU-Net's planner would have written for this network."""
    parser = bundle.parser()
    read = parser.get_parsed_content
    content = parser["network_def"]
    arguments = {key: read(f"network_def::{key}") for key in content if key not in _OWN and key not in _NAMES}
    channels = read("network_def::input_channels")
    configuration: dict[str, Any] = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(read("patch_size")),
        "spacing": [float(side) for side in read("pixdim")],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [True] * channels,
        "architecture": {
            "network_class_name": content["_target_"],
            "arch_kwargs": {**arguments, **_NAMES},
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    for kind, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        options = {"is_seg": kind == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        configuration[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{kind}_kwargs"] = options
    return {
        "dataset_name": "Dataset999_Twin",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 1, 0],
        "transpose_backward": [2, 1, 0],
        # what the normalisation does not use must be there all the same
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(channels)},
        "configurations": {"3d_fullres": configuration},
    }


def write_twin(root: Path, output: Path) -> None:
    """The folder of one trained configuration with one fold."""
    bundle = BundleFolder(root)
    names = bundle.metadata["network_data_format"]
    channels, classes = names["inputs"]["image"]["channel_def"], names["outputs"]["pred"]["channel_def"]
    labels = {("background" if key == "0" else name): int(key) for key, name in classes.items()}
    folder = make_folder(output / "Dataset999_Twin" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    write_json(twin_plans(bundle), folder / "plans.json")
    about = {"channel_names": channels, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    write_json(about, folder / "dataset.json")
    checkpoint = {
        "network_weights": bundle.network().state_dict(),
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, make_folder(folder / "fold_0") / "checkpoint_final.pth")


def main() -> None:
    data, student, work = map(Path, sys.argv[1:])
    if not (work / "20_labels").exists():
        copy_images(data, work)
    with_int8(_TEACHER, data, work)
    bundle = with_int8(student, data, work)
    if not (work / "standalone").exists():
        write_standalone(bundle, work / "standalone")
    if not (work / "nnunet").exists():
        write_twin(bundle, work / "nnunet")


if __name__ == "__main__":
    show_plainly()
    main()
