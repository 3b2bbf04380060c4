"""nnU-Net's results folder to a task file, three bundles and, if asked for, a data list."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dcd_ext.bundles.build import build_bundle
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.sources import roles, to_json
from dcd_ext.data.cases import DATALIST_FILE
from dcd_ext.data.datalist import build_datalist
from dcd_ext.data.dataset import raw_cases
from dcd_ext.data.tasks import Task
from dcd_ext.errors import UserError, first_cause
from dcd_ext.io import make_folder, write_json, write_text
from dcd_ext.nnunet.labels import read_channels, read_labels
from dcd_ext.nnunet.results import Results, read_json, read_results
from dcd_ext.nnunet.task import build_task
from dcd_ext.weights import load_state, save_weights

_VARIABLE = "nnUNet_preprocessed"
_STEP = "plans.json, dataset.json and the checkpoint have to be of one training"


def import_nnunet(
    results: Path,
    output: Path,
    folds: Sequence[str] | None = None,
    raw: Path | None = None,
    splits: Path | None = None,
    checkpoint: str = "checkpoint_final.pth",
) -> list[Path]:
    """Write ``<data set>.json``, the teacher with its weights, the two students, and a data list if ``raw`` is given.

    Everything is made in a hidden folder and moved when it is complete; weights are loaded strictly before that.
    Returns what was written; refused is what cannot be imported, or is there already.
    """
    read = read_results(results, folds, checkpoint)
    task = build_task(read)
    datalist = None if raw is None else _datalist(read, raw, splits, output)
    with tempfile.TemporaryDirectory(dir=make_folder(output), prefix=".import-") as folder:
        stage = Path(folder)
        write_text(to_json(task), stage / f"{read.name}.json")
        _build(read, stage)
        if datalist is not None:
            write_json(datalist, stage / DATALIST_FILE)
        return list(_move(stage, output))


def _build(results: Results, stage: Path) -> None:
    """The bundles of the task file in ``stage``, and the teacher's weights."""
    task_file = stage / f"{results.name}.json"
    try:
        for role in roles():
            for path, text in build_bundle(task_file, role).items():
                write_text(text, stage / path)
        _write_weights(results, stage / f"{results.name}_segmentation_teacher")
    except UserError as error:
        what, place, expected, found, _ = error.parts
        if not str(place).startswith(str(stage)):
            raise
        # of the task file, which is gone when the message is read
        entry = str(place).removeprefix(str(task_file)).lstrip(", ")
        where = f"{results.folder / 'plans.json'}{entry and f' ({entry} of the task file)'}"
        raise UserError(what.replace("task file", "plans"), where, expected, found, _STEP) from error
    except Exception as error:  # what a network raises whose plans contradict themselves cannot be foreseen
        found = (str(first_cause(error)).strip() or type(error).__name__).splitlines()[0]
        expected = "plans of one training"
        raise UserError("the network cannot be built", results.folder / "plans.json", expected, found, _STEP) from error


def _write_weights(results: Results, teacher: Path) -> None:
    """``models/model.pt`` of the teacher; each fold has to fit its network."""
    network: Any = BundleFolder(teacher).parser().get_parsed_content("network_def")
    members = getattr(network, "members", [network])
    for member, fold in zip(members, results.folds, strict=True):
        load_state(member, fold.weights, fold.path, _STEP)
    dice = [fold.dice for fold in results.folds if fold.dice is not None]
    # several folds score better on each case than the one that had not seen it
    scores = {"mean_dice": sum(dice) / len(dice)} if dice else {}
    save_weights(network.state_dict(), teacher / "models" / "model.pt", {"scores": scores})


def _move(stage: Path, output: Path) -> Iterator[Path]:
    made = sorted(path for path in stage.iterdir() if path.name != "__pycache__")
    for path in made:
        if (output / path.name).exists():
            step = "choose another --output, or remove it"
            raise UserError("exists already", output / path.name, next_step=step)
    for path in made:
        yield path.replace(output / path.name)


def _datalist(results: Results, raw: Path, splits: Path | None, output: Path) -> dict[str, Any]:
    """Content of ``datalist.json`` for the folder ``output``, with nnU-Net's splits as folds.

    ``raw`` is ``DatasetNNN_Name`` or the folder that contains it; default of ``splits``: the file below
    ``$nnUNet_preprocessed``. Refused if files are missing, or a case was not held out in one fold.
    """
    name, where = results.name, results.folder / "dataset.json"
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
