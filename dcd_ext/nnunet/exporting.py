"""A bundle of an imported nnU-Net as a results folder that stock ``nnUNetv2_predict`` runs."""

import copy
import re
import tempfile
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from torch import nn

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_json
from dcd_ext.nnunet.labels import read_channels, read_labels
from dcd_ext.nnunet.plans import (
    Configuration,
    complete,
    config_arguments,
    read_configuration,
    resolve,
)
from dcd_ext.nnunet.results import safe_names
from dcd_ext.weights import load_state, save_checkpoint

_TRAINER = "nnUNetTrainer"
_SAME = 1e-5


def export_nnunet(root: Path, output: Path) -> Path:
    """Write ``<data set>/nnUNetTrainer__<plans>__<configuration>`` below ``output`` and return that folder.

    The plans are those of the import; a narrower network gets its own widths there. ``plans_name`` is followed by the
    bundle's role, so that the folder lies beside the one that was imported. Refused if the bundle was not imported from
    nnU-Net, has no weights, or a network that its plans cannot describe; if the folder is there already.
    """
    bundle = BundleFolder(root)
    where = bundle.root / "docs" / "nnunet"
    if not where.is_dir():
        # orientation, resampling and blending of windows are MONAI's in others: nnU-Net's label maps would differ
        expected = "a bundle of dcd import-nnunet, or its student"
        found = "one that segments otherwise than nnU-Net does"
        step = "dcd export --formats standalone, or train with nnU-Net and import that"
        raise UserError("cannot become nnU-Net's", bundle.root, expected, found, step)
    with complete(where):
        plans, dataset, about = _imported(bundle, where)
        with complete(where / "plans.json"):
            configuration = read_configuration(plans, about["configuration"], where / "plans.json")
        network: Any = bundle.network()
        members = list(getattr(network, "members", [network]))
        widths = list(bundle.parser().get_parsed_content("network_def::features_per_stage"))
        # dcd distil makes bundles without
        role = bundle.metadata.get("generated_from", {}).get("role", "distilled")
        plans = _renamed(plans, configuration, widths, role, where / "plans.json")
        channels = len(read_channels(dataset, where / "dataset.json"))
        heads = len(read_labels(dataset, where / "dataset.json").outputs)
        _check(plans, configuration.name, members, channels, heads, bundle)
    name = f"{_TRAINER}__{plans['plans_name']}__{configuration.name}"
    target = output / plans["dataset_name"] / name
    if target.exists():
        raise UserError("exists already", target, next_step="choose another --output, or remove it")
    with tempfile.TemporaryDirectory(dir=make_folder(target.parent), prefix=".export-") as folder:
        stage = Path(folder, name)
        write_json(plans, stage / "plans.json")
        write_json(dataset, stage / "dataset.json")
        folds = about["folds"] if len(members) == len(about["folds"]) else ["0"]
        for fold, member in zip(folds, members, strict=True):
            save_checkpoint(_checkpoint(member, about), stage / f"fold_{fold}" / "checkpoint_final.pth")
        return stage.replace(target)


def _imported(bundle: BundleFolder, where: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Plans, data set, and what of the results was imported."""
    plans, dataset, about = (bundle.read(f"docs/nnunet/{name}.json") for name in ("plans", "dataset", "import"))
    safe_names(plans, where / "plans.json")
    if not all(re.fullmatch(r"all|\d+", fold) for fold in about["folds"]) or not set(about["mirror_axes"]) <= {0, 1, 2}:
        raise ValueError(f"folds {about['folds']} and mirror_axes {about['mirror_axes']} in import.json")
    return plans, dataset, about


def _renamed(
    plans: dict[str, Any], configuration: Configuration, widths: list[int], role: str, where: Path
) -> dict[str, Any]:
    """The plans under a name of their own; those of another width describe this configuration alone."""
    plans = {**copy.deepcopy(plans), "plans_name": f"{plans['plans_name']}_{role}"}
    if widths != configuration.arguments["features_per_stage"]:
        entries = resolve(plans, configuration.name, where)
        entries["architecture"]["arch_kwargs"]["features_per_stage"] = widths
        plans["configurations"] = {configuration.name: entries}
    return plans


def _check(
    plans: dict[str, Any], name: str, members: list[nn.Module], channels: int, heads: int, bundle: BundleFolder
) -> None:
    """Build the network from the plans alone, as nnU-Net will, and compare."""
    where = bundle.root / "configs" / "inference.json"
    configuration = read_configuration(plans, name, where)
    arguments = config_arguments(configuration, where)
    for key in configuration.imported:
        if arguments[key] is not None:
            arguments[key] = locate(arguments[key].removeprefix("$"))
    kind: Any = locate(configuration.network)
    rebuilt = kind(input_channels=channels, num_classes=heads, deep_supervision=False, **arguments).eval()
    step = "export networks whose stages, strides and kernels are those of the import"
    image = bundle.random_input()
    for member in members:
        load_state(rebuilt, member.state_dict(), where, step)
        with torch.no_grad():
            difference = float((rebuilt(image) - member(image)).abs().max())
        if not difference <= _SAME:
            raise UserError("another network than its plans say", where, "equal outputs", difference, step)


def _checkpoint(network: nn.Module, about: dict[str, Any]) -> dict[str, Any]:
    """What prediction reads. Without mirroring axes nnU-Net would silently leave out test-time augmentation."""
    return {
        "network_weights": network.state_dict(),
        "trainer_name": _TRAINER,
        "init_args": {"configuration": about["configuration"]},
        "inference_allowed_mirroring_axes": tuple(about["mirror_axes"]) or None,
    }
