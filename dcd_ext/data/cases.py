"""Cases, and the ``datalist.json`` of a prepared data set, which lists them."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.readers import read_json

DATALIST_FILE = "datalist.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One scan: its images in channel order and, where there is one, its label."""

    case: str
    subject: str  # scans of one person share it
    images: tuple[Path, ...]  # one file per modality, or one file with all of them
    label: Path | None
    extra: dict[str, Path] = field(default_factory=dict)  # further paths to keep in the data list


def read_datalist(path: Path) -> dict[str, Any]:
    """The content of a data list; ``training`` and ``test`` are lists of dictionaries, ``folds`` is a number."""
    again = f"correct it, or write it with dcd prepare <task> --source <data> --output {path.parent}"
    content = read_json(path, "datalist", "data list", again)
    # the Decathlon writes test cases as bare file names
    test = [{"image": entry} if isinstance(entry, str) else entry for entry in content.get("test", [])]
    return {"folds": 5, "training": [], **content, "test": test}


def read_case(entry: Mapping[str, Any], folder: Path, number: int = 0) -> Case:
    """An entry with its files seen from ``folder``; one without a name has that of its image, or its number."""
    names = entry.get("image", [])
    images = tuple(folder / name for name in (names if isinstance(names, list | tuple) else [names]))
    label = folder / entry["label"] if "label" in entry else None
    name = entry.get("case", images[0].name if images else str(number))
    return Case(name, entry.get("subject", name), images, label)


def require_entries(cases: Sequence[Mapping[str, Any]], where: str, needed: Sequence[str]) -> None:
    """Refuse a list of cases in which one lacks what is needed, by the case's number."""
    for number, case in enumerate(cases):
        if missing := [name for name in needed if name not in case]:
            found, step = f"no {', '.join(missing)}", "complete it; dcd check shows all such entries"
            raise UserError("incomplete entry", f"{where}[{number}]", ", ".join(needed), found, step)


def load_cases(dataset_dir: str, section: str, fold: int | str = 0, labelled: bool = False) -> list[dict[str, Any]]:
    """Entries of ``<dataset_dir>/datalist.json`` with resolved paths.

    Args:
        dataset_dir: folder written by ``dcd prepare``.
        section: ``training`` (all folds but ``fold``), ``validation`` (``fold`` only) or ``test``.
        fold: the held-out fold, or ``all`` to hold out none: every case is trained on and validated on.
        labelled: ``test`` cases need a label and a name, too; those of the other sections always do.

    Refused if there is no data list, the section or the fold is empty or has fewer cases than a distributed run has
    processes, or an entry is incomplete.
    """
    import torch.distributed as dist  # takes seconds; preparing and checking data do without

    cases = _load_cases(dataset_dir, section, fold, labelled)
    processes = dist.get_world_size() if dist.is_initialized() else 1
    if len(cases) < processes:
        what, step = f"fewer {section} cases than processes", "start fewer processes, or hold out a larger --fold"
        raise UserError(what, Path(dataset_dir, DATALIST_FILE), f"at least {processes}", len(cases), step)
    return cases


def _load_cases(dataset_dir: str, section: str, fold: int | str, labelled: bool) -> list[dict[str, Any]]:
    path = Path(dataset_dir, DATALIST_FILE)
    key = "test" if section == "test" else "training"
    cases = read_datalist(path)[key]
    if not cases:
        step = "prepare the data again" + (", with --test_fold K" if key == "test" else "")
        raise UserError(f"no '{key}' entries", path, f"cases under '{key}'", "none", step)
    needed: tuple[str, ...] = ("image", "label", "case", "fold")
    if key == "test":
        needed = ("image", "label", "case") if labelled else ("image",)
    require_entries(cases, f"{path}, {key}", needed)
    cases = [_resolved(case, dataset_dir) for case in cases]
    if section == "test":
        return cases
    if fold == "all":
        if section == "validation":
            logger.warning("fold all: validation scores are those of the training cases")
        return cases
    return _of_fold(cases, section, fold, path)


def _resolved(case: dict[str, Any], folder: str) -> dict[str, Any]:
    """The entry with its files' paths seen from the working directory."""

    def resolve(name: Any) -> Any:
        return [resolve(n) for n in name] if isinstance(name, list) else os.path.normpath(os.path.join(folder, name))

    return {key: resolve(value) if key in ("image", "label", "source_mask") else value for key, value in case.items()}


def _of_fold(cases: list[dict[str, Any]], section: str, fold: int | str, path: Path) -> list[dict[str, Any]]:
    chosen = [case for case in cases if (case["fold"] == fold) == (section == "validation")]
    if not chosen:
        folds = sorted({case["fold"] for case in cases}, key=str)
        step = "--fold all trains and validates on every case"
        if len(folds) == 1:  # whichever fold is asked for, one side stays empty
            raise UserError(f"no {section} case", path, "cases in two folds", f"all in fold {folds[0]}", step)
        step = f"pass --fold with one of them ({step})"
        raise UserError(f"no {section} case", path, f"fold in {folds}", fold, step)
    return chosen
