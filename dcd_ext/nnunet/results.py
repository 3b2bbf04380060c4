"""A results folder of nnU-Net v2: plans, data set and checkpoints, read without nnunetv2; no pickle is run."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext import readers
from dcd_ext.errors import UserError
from dcd_ext.weights import read_checkpoint

_STEP = "pass nnU-Net's folder <trainer>__<plans>__<configuration>, or the folder of its data set"
# a fold's checkpoint also holds its training curves, as NumPy numbers; numpy 1 and 2 name the module otherwise
_SCALAR: Any = np.float32(0).__reduce__()[0]
_ALLOWED = (
    np.dtype,
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
)


@dataclass(frozen=True)
class Fold:
    """What is taken from one checkpoint."""

    name: str  # "0" to "4", or "all"
    path: Path
    weights: dict[str, Any]
    configuration: str
    mirror_axes: list[int]
    dice: float | None  # nnU-Net's own, of its held-out cases


@dataclass(frozen=True)
class Results:
    """One trained configuration."""

    folder: Path
    name: str  # of the data set: first part of the bundles' names
    plans: dict[str, Any]
    dataset: dict[str, Any]
    folds: list[Fold]


def read_results(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> Results:
    """Read plans, data set and the checkpoints of some folds; default: of every numbered fold that has one.

    Refused if a file is missing, damaged or not nnU-Net's, or the folds are of several configurations.
    """
    model = _model_folder(folder)
    plans, dataset = read_json(model / "plans.json"), read_json(model / "dataset.json")
    name = safe_names(plans, model / "plans.json")
    read = [_read_fold(model / f"fold_{fold}" / checkpoint) for fold in folds or _found(model, checkpoint)]
    first = read[0]
    for fold in read[1:]:
        if fold.configuration != first.configuration:
            raise UserError("folds of two configurations", fold.path, first.configuration, fold.configuration, _STEP)
    return Results(model, name, plans, dataset, read)


def safe_names(plans: dict[str, Any], where: Path) -> str:
    """The data set's name; refused if it, or the plans' name, cannot be that of a folder."""
    for key, what in (("plans_name", "plans"), ("dataset_name", "data set")):
        name = str(plans.get(key))
        # a dot could not be in the name of a bundle
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name.replace(".", "") if key == "plans_name" else name):
            raise UserError(f"unusable name of the {what}", where, "letters, digits, '_' and '-'", name, "rename it")
    return name


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON object, or a list."""
    content = readers.read_json(path, None, "nnU-Net results", _STEP)
    if not isinstance(content, kind):
        raise UserError("no nnU-Net results", path, f"a {kind.__name__}", type(content).__name__, _STEP)
    return content


def _model_folder(folder: Path) -> Path:
    """The folder itself, or the one trained 3d_fullres configuration below it."""
    if (folder / "plans.json").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("*__*__3d_fullres*/plans.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError("no nnU-Net results", folder, "one folder <trainer>__<plans>__3d_fullres", names, _STEP)
    return found[0]


def _found(model: Path, checkpoint: str) -> list[str]:
    names = [path.parent.name.removeprefix("fold_") for path in model.glob(f"fold_*/{checkpoint}")]
    numbers = sorted((name for name in names if name.isdecimal()), key=int)
    if not numbers and names:
        return ["all"]
    if not numbers:
        step = "train one, or pass --checkpoint NAME"
        raise UserError("no trained fold", model, f"fold_0/{checkpoint}", "none", step)
    return numbers


def _read_fold(path: Path) -> Fold:
    """A checkpoint; whatever is not tensors, numbers and text is refused, and nothing of it runs."""
    step = "pass the unchanged checkpoint of nnU-Net v2.5 or later, or other --folds"
    content = read_checkpoint(path, step, _ALLOWED)
    expected = "network_weights, init_args and trainer_name, as nnU-Net writes"
    weights, arguments = content.get("network_weights"), content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    if not isinstance(weights, dict) or not isinstance(configuration, str) or "trainer_name" not in content:
        raise UserError("not a checkpoint of nnU-Net", path, expected, ", ".join(map(str, content))[:80], step)
    axes = content.get("inference_allowed_mirroring_axes") or ()
    if not isinstance(axes, (tuple, list)) or any(axis not in (0, 1, 2) for axis in axes):
        raise UserError("not a checkpoint of a 3D network", path, "mirroring axes 0, 1, 2", axes, step)
    name = path.parent.name.removeprefix("fold_")
    return Fold(name, path, weights, configuration, [int(axis) for axis in axes], _dice(path))


def _dice(checkpoint: Path) -> float | None:
    """Mean foreground Dice of nnU-Net's validation, which follows a complete training; None if there is none."""
    try:
        summary = json.loads((checkpoint.parent / "validation" / "summary.json").read_text("utf-8"))
        return float(summary["foreground_mean"]["Dice"]) if checkpoint.name == "checkpoint_final.pth" else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
