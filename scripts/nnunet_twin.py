"""The network of a shipped bundle as a folder that stock nnU-Net runs, to time both with the same weights.

``dcd export-nnunet`` does this for bundles that were imported from nnU-Net and have its plans. These plans are made up:
axes in the bundle's order, its spacing, patch and normalisation, nnU-Net's own resampling.
"""

from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.io import make_folder, write_json

# arguments of the network that nnU-Net gives itself, and those it reads as names
_OWN = ("_target_", "input_channels", "num_classes", "deep_supervision")
_NAMES = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "nonlin": "torch.nn.LeakyReLU",
    "dropout_op": None,
    "dropout_op_kwargs": None,
}


def plans(bundle: BundleFolder) -> dict[str, Any]:
    """What nnU-Net's planner would have written for this network."""
    parser = bundle.parser()
    read = parser.get_parsed_content
    content = parser["network_def"]
    arguments = {key: read(f"network_def::{key}") for key in content if key not in _OWN and key not in _NAMES}
    channels = read("network_def::input_channels")
    resampling = {"resample_data_or_seg_to_shape": {"order_z": 0, "force_separate_z": None}}
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
        [(name, options)] = resampling.items()
        configuration[f"resampling_fn_{kind}"] = name
        configuration[f"resampling_fn_{kind}_kwargs"] = {"is_seg": kind == "seg", "order": order, **options}
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


def write(root: Path, output: Path) -> Path:
    """The folder of one trained configuration with one fold."""
    bundle = BundleFolder(root)
    names = bundle.metadata["network_data_format"]
    channels, labels = names["inputs"]["image"]["channel_def"], names["outputs"]["pred"]["channel_def"]
    folder = make_folder(output / "Dataset999_Twin" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    write_json(plans(bundle), folder / "plans.json")
    about = {"channel_names": channels, "labels": {name: int(key) for key, name in labels.items()}}
    about["labels"] = {("background" if value == 0 else name): value for name, value in about["labels"].items()}
    write_json({**about, "numTraining": 1, "file_ending": ".nii.gz"}, folder / "dataset.json")
    checkpoint = {
        "network_weights": bundle.network().state_dict(),
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, make_folder(folder / "fold_0") / "checkpoint_final.pth")
    return folder
