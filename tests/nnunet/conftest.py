"""Results folders in nnU-Net v2.5's format, with random weights, written without nnunetv2."""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
import torch

from dcd_ext.bundles.sources import BUNDLE_SRC
from dcd_ext.io import write_json

# the code that is part of each imported bundle
sys.path.append(str(BUNDLE_SRC / "nnunet"))

UNET = "dynamic_network_architectures.architectures.unet."
ORDERS = {"data": 3, "seg": 1, "probabilities": 1}


def plans(name: str = "Dataset041_Toy", channels: int = 1, plain: bool = False, **changes: Any) -> dict[str, Any]:
    """``plans.json``; ``changes`` go into the configuration, or to the top where the key is one of there."""
    arguments = {
        "n_stages": 3,
        "features_per_stage": [8, 16, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "n_conv_per_stage" if plain else "n_blocks_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration: dict[str, Any] = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 16],
        "spacing": [4.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "architecture": {
            "network_class_name": UNET + ("PlainConvUNet" if plain else "ResidualEncoderUNet"),
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    for kind, order in ORDERS.items():
        configuration[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        options = {"is_seg": kind == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        configuration[f"resampling_fn_{kind}_kwargs"] = options
    top = {
        "dataset_name": name,
        "plans_name": "nnUNetResEncUNetMPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 0, 1],
        "transpose_backward": [1, 2, 0],
        "foreground_intensity_properties_per_channel": {
            str(c): {"mean": 40.0, "std": 25.0, "percentile_00_5": -20.0, "percentile_99_5": 110.0}
            for c in range(channels)
        },
    }
    for key, value in changes.items():
        (top if key in top else configuration)[key] = value
    # as in plans of several batch sizes: the one that was trained inherits from another
    trained = {"inherits_from": "base", "batch_size": configuration["batch_size"]}
    return {**top, "configurations": {"base": configuration, "3d_fullres": trained}}


def dataset(channels: int = 1, **changes: Any) -> dict[str, Any]:
    """``dataset.json``."""
    about = {
        "channel_names": {str(c): f"sequence {c}" for c in range(channels)},
        "labels": {"background": 0, "core": 1, "rim": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    return {**about, **changes}


def network(content: dict[str, Any], channels: int = 1, heads: int = 3, seed: int = 0) -> torch.nn.Module:
    """The network of :func:`plans`, built from its names as nnU-Net does."""
    architecture = content["configurations"]["base"]["architecture"]
    arguments = dict(architecture["arch_kwargs"])
    for key in architecture["_kw_requires_import"]:
        arguments[key] = arguments[key] and locate(arguments[key])
    torch.manual_seed(seed)
    kind: Any = locate(architecture["network_class_name"])
    return kind(input_channels=channels, num_classes=heads, deep_supervision=False, **arguments).eval()


def write_results(
    folder: Path,
    folds: tuple[str, ...] = ("0",),
    channels: int = 1,
    heads: int = 3,
    about: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A trained configuration with the checkpoints of some folds; returns its folder."""
    content = plans(channels=channels, **changes)
    model = folder / content["dataset_name"] / f"nnUNetTrainer__{content['plans_name']}__3d_fullres"
    write_json(content, model / "plans.json")
    write_json(dataset(channels, **(about or {})), model / "dataset.json")
    for number, fold in enumerate(folds):
        (model / f"fold_{fold}").mkdir(parents=True)
        state = network(content, channels, heads, seed=number).state_dict()
        torch.save(checkpoint(state), model / f"fold_{fold}" / "checkpoint_final.pth")
    return model


def checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """The entries of nnU-Net's file, with NumPy numbers among its training curves."""
    return {
        "network_weights": state,
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {"train_losses": [np.float32(0.5)], "epoch_end_timestamps": [1.0]},
        "_best_ema": np.float32(0.25),
        "current_epoch": 2,
        "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
