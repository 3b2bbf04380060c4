"""Self-made bundles in the Model Zoo's style, with one small volume to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser

from dcd_ext.networks import seeded

NETWORKS: dict[str, dict[str, Any]] = {
    "SegResNet": {
        "_target_": "SegResNet",
        "blocks_down": [1, 1, 1],
        "blocks_up": [1, 1],
        "init_filters": 16,
        "in_channels": 1,
        "out_channels": 2,
    },
    "UNet": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [8, 16, 32, 64],
        "strides": [2, 2, 2],
        "num_res_units": 1,
        "norm": "batch",
    },
    "DynUNet": {
        "_target_": "monai.networks.nets.DynUNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": "$len(@class_names)",
        "kernel_size": [3, [3, 3, 1], 3],
        "strides": [1, [2, 2, 1], 2],
        "upsample_kernel_size": "$@network_def#strides[1:]",
    },
    "SwinUNETR": {
        "_target_": "SwinUNETR",
        "in_channels": 1,
        "out_channels": 2,
        "feature_size": 48,
        "depths": [1, 1, 1, 1],
        "window_size": 2,
    },
    "UNETR": {
        "_target_": "UNETR",
        "in_channels": 1,
        "out_channels": 2,
        "img_size": [32, 32, 32],
        "feature_size": 16,
        "hidden_size": 96,
        "mlp_dim": 384,
        "num_heads": 6,
    },
    "AttentionUnet": {
        "_target_": "monai.networks.nets.AttentionUnet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [16, 32, 64],
        "strides": [2, 2],
    },
    "SegResNetDS": {
        "_target_": "SegResNetDS",
        "in_channels": 1,
        "out_channels": 2,
        "init_filters": 16,
        "blocks_down": [1, 1, 1],
        "norm": "instance",
    },
}
# the coarsest feature map of SwinUNETR has a 32nd of each side, and an instance norm needs two voxels
SHAPE = {"SwinUNETR": (64, 32, 32), "UNETR": (32, 32, 32)}


def make_bundle(root: Path, network: dict[str, Any], suffix: str = "json", sign: str = "#") -> Path:
    """A trained bundle ``root`` with its data in ``root/../data``; ids are written with ``sign``."""
    shape = SHAPE.get(network["_target_"], (16, 16, 16))
    _make_data(root.parent / "data", shape)
    train, inference = _train(network, list(shape)), _inference(network, list(shape))
    multi_gpu = {
        "train#trainer#train_handlers": "$@train#handlers[: -1 if dist.get_rank() > 0 else None]",
        "train#handlers#0#interval": 2,
    }
    files = {"train": train, "inference": inference, "multi_gpu_train": multi_gpu}
    files["metadata"] = {
        "version": "0.3.1",
        "changelog": {"0.3.1": "trained"},
        # what random weights reach: two classes in noise
        "eval_metrics": {"mean_dice": 0.1},
        "network_data_format": {"inputs": {"image": {"num_channels": 1, "spatial_shape": list(shape)}}},
    }
    for name, content in files.items():
        text = json.dumps(content) if suffix == "json" or name == "metadata" else yaml.safe_dump(content)
        path = root / "configs" / f"{name}.{'json' if name == 'metadata' else suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("#", sign), "utf-8")
    (root / "LICENSE").write_text("Apache License 2.0", "utf-8")
    (root / "models").mkdir()
    with seeded():  # or the score of two classes in noise would be another each time
        teacher = ConfigParser({**train, "network_def": network}).get_parsed_content("network_def")
    torch.save({"state_dict": teacher.state_dict(), "epoch": 3}, root / "models" / "model.pt")
    return root


def _make_data(folder: Path, shape: tuple[int, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for case in range(1):
        label = np.zeros(shape, np.uint8)
        label[4:10, 3:9, 5:12] = 1
        image = label + generator.normal(0, 0.2, label.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / f"image_{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / f"label_{case}.nii.gz")


_COMMON: dict[str, Any] = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "dataset_dir": "/workspace/data",
    "class_names": ["background", "block"],
    "device": "$torch.device('cpu')",
    "network": "$@network_def.to(@device)",
    "images": "$sorted(glob.glob(@dataset_dir + '/image_*.nii.gz'))",
}


_DICE = {"_target_": "MeanDice", "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}


def _train(network: dict[str, Any], roi: list[int]) -> dict[str, Any]:
    return {
        **_COMMON,
        "ckpt_dir": "$@bundle_root + '/models'",
        "labels": "$sorted(glob.glob(@dataset_dir + '/label_*.nii.gz'))",
        "network_def": network,
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "train": {
            "deterministic_transforms": [
                {"_target_": "LoadImaged", "keys": ["image", "label"]},
                {"_target_": "EnsureChannelFirstd", "keys": ["image", "label"]},
            ],
            "preprocessing": {"_target_": "Compose", "transforms": "%train#deterministic_transforms"},
            "dataset": {
                "_target_": "CacheDataset",
                "data": "$[{'image': i, 'label': l} for i, l in zip(@images, @labels)]",
                "transform": "@train#preprocessing",
                "progress": False,
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 1, "shuffle": True},
            "inferer": {"_target_": "SimpleInferer"},
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                    {
                        "_target_": "AsDiscreted",
                        "keys": ["pred", "label"],
                        "argmax": [True, False],
                        "to_onehot": "$len(@class_names)",
                    },
                ],
            },
            "handlers": [
                {
                    "_target_": "ValidationHandler",
                    "validator": "@validate#evaluator",
                    "epoch_level": True,
                    "interval": 1,
                },
                {
                    "_target_": "StatsHandler",
                    "tag_name": "train_loss",
                    "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
                },
            ],
            "trainer": {
                "_target_": "SupervisedTrainer",
                "max_epochs": 2,
                "device": "@device",
                "train_data_loader": "@train#dataloader",
                "network": "@network",
                "loss_function": "@loss",
                "optimizer": "@optimizer",
                "inferer": "@train#inferer",
                "train_handlers": "@train#handlers",
            },
        },
        "validate": {
            "dataset": {"_target_": "Dataset", "data": "%train#dataset#data", "transform": "@train#preprocessing"},
            "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1},
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": roi},
            "postprocessing": "%train#postprocessing",
            "key_metric": {"val_mean_dice": {**_DICE, "include_background": False}},
            "additional_metrics": {"val_mean_dice_all": _DICE},
            "handlers": [
                {
                    "_target_": "CheckpointSaver",
                    "save_dir": "@ckpt_dir",
                    "save_dict": {"model": "@network"},
                    "save_final": True,
                    "final_filename": "model.pt",
                }
            ],
            "evaluator": {
                "_target_": "SupervisedEvaluator",
                "device": "@device",
                "val_data_loader": "@validate#dataloader",
                "network": "@network",
                "inferer": "@validate#inferer",
                "postprocessing": "@validate#postprocessing",
                "key_val_metric": "@validate#key_metric",
                "additional_metrics": "@validate#additional_metrics",
                "val_handlers": "@validate#handlers",
            },
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@train#trainer.run()"],
    }


def _inference(network: dict[str, Any], roi: list[int]) -> dict[str, Any]:
    return {
        **_COMMON,
        "output_dir": "$@bundle_root + '/eval'",
        "network_def": network,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @images]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": roi, "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "print_log": False},
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }
