"""A raw data set of nnU-Net as a data list, with nnU-Net's splits as folds."""

import os
from pathlib import Path
from typing import Any

from dcd_ext.data.datalist import build_datalist
from dcd_ext.data.dataset import raw_cases
from dcd_ext.data.tasks import Task
from dcd_ext.errors import UserError
from dcd_ext.nnunet.labels import read_channels, read_labels
from dcd_ext.nnunet.results import Results, read_json
from dcd_ext.nnunet.task import task_name

_VARIABLE = "nnUNet_preprocessed"


def nnunet_datalist(results: Results, raw: Path, splits: Path | None, output: Path) -> dict[str, Any]:
    """Content of ``datalist.json`` for the folder ``output``.

    Args:
        results: whose channels and labels the files have.
        raw: ``DatasetNNN_Name`` or the folder that contains it.
        splits: ``splits_final.json``; default: the one below ``$nnUNet_preprocessed``.
        output: folder the data list is for.

    Raises:
        UserError: if files are missing, or the splits do not say of each case in which fold it was held out.
    """
    name, where = task_name(results), results.folder / "dataset.json"
    raw = raw / name if (raw / name).is_dir() else raw
    channels, labels = read_channels(results.dataset, where), read_labels(results.dataset, where)
    ending = str(results.dataset.get("file_ending", ".nii.gz"))
    cases = raw_cases(raw, len(channels), ending)
    folds = _folds(splits or _default_splits(name))
    names = [case.case for case in cases if case.label is not None]
    if missing := sorted(set(names) - set(folds)):
        step = "pass the --splits of the training"
        raise UserError("case without a fold", splits or "splits_final.json", "each case held out", missing[0], step)
    values = {**labels.values, **({} if labels.ignore is None else {labels.ignore: "ignore"})}
    task = Task(name, tuple(channels), values)
    content = build_datalist(cases, task, output, folds=max(2, len(set(folds.values()))))
    for entry in content["training"]:
        entry["fold"] = folds[entry["case"]]
    # not drawn from it
    del content["seed"]
    return content


def _default_splits(name: str) -> Path:
    folder = os.environ.get(_VARIABLE, "")
    path = Path(folder, name, "splits_final.json")
    if not folder or not path.is_file():
        expected, found = "splits_final.json", path if folder else f"no variable {_VARIABLE}"
        raise UserError("no splits", name, expected, found, "pass --splits FILE")
    return path


def _folds(path: Path) -> dict[str, int]:
    """The fold in which each case is held out."""
    splits = read_json(path, list)
    folds: dict[str, int] = {}
    for number, split in enumerate(splits):
        held_out = split.get("val") if isinstance(split, dict) else None
        if not isinstance(held_out, list):
            raise UserError("no splits", path, "a list 'val' in each", held_out, "pass nnU-Net's splits_final.json")
        for case in map(str, held_out):
            if folds.setdefault(case, number) != number:
                raise UserError("case in two folds", path, "each held out once", case, "pass splits without overlap")
    return folds
