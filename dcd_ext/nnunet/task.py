"""A task file from nnU-Net's plans: what ``dcd build`` makes the three bundles from."""

from typing import Any

from dcd_ext.bundles.new_task import distillation
from dcd_ext.errors import UserError
from dcd_ext.nnunet.labels import Labels, read_channels, read_labels
from dcd_ext.nnunet.plans import NETWORKS, Configuration, complete, config_arguments, read_configuration
from dcd_ext.nnunet.results import Results

# nnU-Net turns about the first axis alone where the patch is this much longer along another one
_ANISOTROPIC_PATCH = 3
_ROTATION = 0.5236
_NETWORK_NAMES = dict(zip(NETWORKS, ("A residual-encoder U-Net (nnU-Net's)", "A plain U-Net (nnU-Net's)"), strict=True))
# arguments that a bundle sets by its own keys
_BY_KEYS = {"n_stages": "$len(@strides)", "strides": "@strides"}
_BY_KEYS["features_per_stage"] = "$[max(f // @reduction_factor, @min_features) for f in @features]"


def build_task(results: Results) -> dict[str, Any]:
    """The task file's content; refused if plans or data set say what a bundle could not do."""
    where = results.folder / "plans.json"
    with complete(where):
        configuration = read_configuration(results.plans, results.folds[0].configuration, where)
        channels = read_channels(results.dataset, results.folder / "dataset.json")
        labels = read_labels(results.dataset, results.folder / "dataset.json")
        if len(configuration.normalization) != len(channels):
            expected = f"{len(channels)} normalisations (channels of dataset.json)"
            found = len(configuration.normalization)
            raise UserError("plans of another data set", where, expected, found, "do not mix folders")
        arguments = config_arguments(configuration, where)
        return {
            "common": _common(configuration, arguments, channels, labels),
            "fragments": _fragments(results, configuration, arguments, labels),
            "train": {"batch_size": configuration.batch_size, **_label_entries(labels)},
            "evaluate": {"class_names": [labels.values[v] for v in sorted(labels.values)[1:]], "nsd_tolerance_mm": 2.0},
            "distillation": distillation(results.name),
            "metadata": _metadata(results.name, channels, labels),
            "readme": {"network": _NETWORK_NAMES[configuration.network], **_readme(results.name, channels, labels)},
            "nnunet": {
                "plans": results.plans,
                "dataset": results.dataset,
                "folds": [fold.name for fold in results.folds],
                "configuration": configuration.name,
                "mirror_axes": results.folds[0].mirror_axes,
            },
        }


def _common(
    configuration: Configuration, arguments: dict[str, Any], channels: list[str], labels: Labels
) -> dict[str, Any]:
    features = arguments["features_per_stage"]
    return {
        "in_channels": len(channels),
        "num_classes": len(labels.outputs),
        "features": features,
        "n_blocks": arguments[NETWORKS[configuration.network]],
        "strides": arguments["strides"],
        "patch_size": configuration.patch_size,
        "pixdim": configuration.spacing,
        "reduction_factor": 1,
        "min_features": min(8, *features),
    }


def _fragments(
    results: Results, configuration: Configuration, arguments: dict[str, Any], labels: Labels
) -> dict[str, Any]:
    by_keys = {**_BY_KEYS, NETWORKS[configuration.network]: "@n_blocks"}
    network = {
        "_target_": configuration.network,
        "input_channels": "@in_channels",
        "num_classes": "@num_classes",
        **{key: by_keys.get(key, value) for key, value in arguments.items()},
        "deep_supervision": "%fragments::deep_supervision",
    }
    patch = configuration.patch_size
    flat = max(patch) / patch[0] > _ANISOTROPIC_PATCH
    return {
        "mirror_axes": results.folds[0].mirror_axes,
        "rotate_range": [_ROTATION, *([0.0, 0.0] if flat else [_ROTATION, _ROTATION])],
        "network_def": network,
        "as_stored": not configuration.reorients,
        "transpose_forward": configuration.transpose_forward,
        "normalization": configuration.normalization,
        "resampling": configuration.resampling,
        "region_values": labels.region_values,
        # of an ensemble: see bundle_src/nnunet/ensemble.json
        "architecture": configuration.network,
        "members": len(results.folds),
        "sigmoid": labels.regions is not None,
    }


def _label_entries(labels: Labels) -> dict[str, Any]:
    """Entries of ``train.json`` for regions and for voxels without a known label."""
    if labels.regions is None and labels.ignore is None:
        return {}
    classes = len(labels.values)
    overlapping = labels.regions is not None
    return {
        "loss::loss": {
            "_target_": "nnunet_scripts.LabelLoss",
            "loss": {
                "_target_": "DiceCELoss",
                "include_background": overlapping,
                "to_onehot_y": not overlapping,
                "softmax": not overlapping,
                "sigmoid": overlapping,
                "batch": False,
            },
            "regions": labels.regions,
            "ignore": labels.ignore,
        },
        # positions: nowhere around voxels without a known label
        "train::random_transforms::1::num_classes": classes + (labels.ignore is not None),
        "train::random_transforms::1::ratios": [2 * (classes - 1)]
        + [1] * (classes - 1)
        + [0] * (labels.ignore is not None),
        # model selection by the label map
        "validate::postprocessing::transforms": [
            {
                "_target_": "nnunet_scripts.LabelMapd",
                "keys": "pred",
                "region_values": labels.region_values,
                "ignore": labels.ignore,
            },
            {"_target_": "AsDiscreted", "keys": ["pred", "label"], "to_onehot": classes},
        ],
    }


def _metadata(name: str, channels: list[str], labels: Labels) -> dict[str, Any]:
    return {
        "title": f"{name} (nnU-Net)",
        "data_source": f"{name}, a data set in nnU-Net's format",
        "data_type": "nibabel",
        "image_classes": f"{len(channels)} channel(s): {', '.join(channels)}",
        "label_classes": ", ".join(f"{value} {label}" for value, label in sorted(labels.values.items())),
        "inputs": channels,
        "outputs": labels.outputs,
        "references": [
            "Isensee F et al. nnU-Net: a self-configuring method for deep learning-based biomedical image "
            "segmentation. Nat Methods 18, 203-211 (2021)"
        ],
    }


def _readme(name: str, channels: list[str], labels: Labels) -> dict[str, Any]:
    return {
        "task_title": f"{name}, imported from nnU-Net",
        "task_name": name,
        "data": f"{name}: {', '.join(channels)}. Labels: "
        + ", ".join(f"{label} {value}" for value, label in sorted(labels.values.items())[1:])
        + ".",
        "data_license": f"{name}: see its source.",
        # dcd import-nnunet --raw has written it beside the bundles
        "dataset_dir": "bundles",
        "prepare": "dcd check bundles/datalist.json",
    }
