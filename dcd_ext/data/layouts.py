"""Find cases in the folder layouts as published: BraTS 2023/2024, ISLES-2022 and the Decathlon."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcd_ext.data.tasks import BRATS24, ISLES22
from dcd_ext.errors import UserError

__all__ = ["Case", "find_brats", "find_isles", "find_msd", "read_msd_index"]

_BRATS_CASE = re.compile(r"BraTS-[A-Za-z]+-\d{5}-\d{3}$")
_ISLES_CASE = re.compile(r"sub-strokecase\d{4}$")
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Case:
    """One scan: its images in channel order and, where there is one, its label.

    Attributes:
        case: unique name of the scan.
        subject: name of the person; scans of one person share it.
        images: one file per modality, or one file with all of them.
        label: the mask, or None for a case without.
        extra: further paths to keep in the data list, by key.
    """

    case: str
    subject: str
    images: tuple[Path, ...]
    label: Path | None
    extra: dict[str, Path] = field(default_factory=dict)


def _case_folders(source: Path, pattern: re.Pattern[str], skip: Iterable[str] = ()) -> list[Path]:
    """Folders below ``source`` whose name matches, sorted by name; archives unpack with a varying number of levels."""
    if not source.is_dir():
        raise UserError("no such folder", source, "the unpacked data set", "nothing", "check --source")
    found: list[Path] = []
    for folder, names, _ in os.walk(source):
        found += [Path(folder) / name for name in names if pattern.match(name)]
        names[:] = [n for n in names if not pattern.match(n) and not n.startswith(".") and n not in skip]
    found.sort(key=lambda path: (path.name, str(path)))
    for first, second in itertools.pairwise(found):
        if first.name == second.name:
            raise UserError(
                "the same case twice", first.name, "one folder", f"{first} and {second}", "remove or move one of them"
            )
    return found


def _one_file(folder: Path, ending: str, case: str, name: str, source: Path) -> Path:
    """The only file in ``folder`` that ends with ``ending`` and a NIfTI suffix."""
    files = _files(folder, ending)
    if len(files) == 1:
        return files[0]
    what = f"no {name}" if not files else f"more than one {name}"
    raise UserError(
        f"case {case}: {what}",
        folder,
        f"one *{ending}.nii.gz",
        ", ".join(f.name for f in files) or "none",
        f"complete the case, or move it out of {source}",
    )


def _files(folder: Path, ending: str) -> list[Path]:
    """NIfTI files in ``folder`` whose stem ends with ``ending``; hidden files (``._x`` of macOS) do not count."""
    if not folder.is_dir():
        return []
    endings = tuple(ending + suffix for suffix in _SUFFIXES)
    return sorted(f for f in folder.iterdir() if f.name.endswith(endings) and not f.name.startswith("."))


def _nothing_found(source: Path, expected: str) -> UserError:
    """The error for a folder in another layout; shows what is there."""
    names = sorted(p.name for p in source.iterdir() if not p.name.startswith("."))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return UserError("no case found", source, expected, shown or "an empty folder", "check --source and the task")


def find_brats(source: Path) -> list[Case]:
    """Find BraTS 2023/2024 cases: ``BraTS-GLI-00001-000/BraTS-GLI-00001-000-{t1n,t1c,t2w,t2f,seg}.nii.gz``.

    ``BraTS-GLI-00001-000`` and ``-001`` are two time points of the subject ``BraTS-GLI-00001``.

    Args:
        source: the data set's folder; case folders may lie at any depth.

    Raises:
        UserError: when there is no case, a modality is missing or double, or a case name occurs twice.
    """
    cases = []
    for folder in _case_folders(source, _BRATS_CASE):
        name = folder.name
        images = tuple(_one_file(folder, f"-{m}", name, m, source) for m in BRATS24.modalities)
        label = _one_file(folder, "-seg", name, "seg", source) if _files(folder, "-seg") else None
        cases.append(Case(name, name.rpartition("-")[0], images, label))
    if not cases:
        raise _nothing_found(source, "folders such as BraTS-GLI-00001-000 (BraTS 2023 or later)")
    return cases


def find_isles(source: Path) -> list[Case]:
    """Find ISLES-2022 cases: ``sub-strokecaseNNNN/ses-0001/{anat,dwi}`` and their masks below ``derivatives``.

    Args:
        source: the data set's folder.

    Returns:
        Cases whose images are FLAIR, DWI, ADC as published, each on its own grid.

    Raises:
        UserError: when there is no case, or a modality is missing or double.
    """
    cases = []
    for folder in _case_folders(source, _ISLES_CASE, skip=("derivatives", "on_flair")):
        name = folder.name
        session = folder / "ses-0001"
        files = {"FLAIR": ("anat", "_FLAIR"), "DWI": ("dwi", "_dwi"), "ADC": ("dwi", "_adc")}
        images = tuple(_one_file(session / files[m][0], files[m][1], name, m, source) for m in ISLES22.modalities)
        masks = folder.parent / "derivatives" / name / "ses-0001"
        label = _one_file(masks, "_msk", name, "mask", source) if _files(masks, "_msk") else None
        cases.append(Case(name, name, images, label))
    if not cases:
        raise _nothing_found(source, "folders such as sub-strokecase0001")
    return cases


def read_msd_index(source: Path) -> dict[str, Any]:
    """Read ``dataset.json`` of a Decathlon task.

    Args:
        source: the task's folder.

    Raises:
        UserError: when it is missing or not in the Decathlon format.
    """
    path = source / "dataset.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(index["training"], list):
            raise TypeError("'training' is not a list")
        if not all(key.isdecimal() for key in (*index["modality"], *index["labels"])):
            raise ValueError("'modality' and 'labels' must be numbered")
        return {"test": [], "name": source.name, **index, "modality": index["modality"], "labels": index["labels"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "no Decathlon data set",
            path,
            "a dataset.json with modality, labels and training",
            f"{type(error).__name__}: {error}",
            "check --source, or fetch the data with prepare_data.py msd --download Task04_Hippocampus",
        ) from error


def find_msd(source: Path) -> list[Case]:
    """Find the cases that a Decathlon ``dataset.json`` lists.

    Args:
        source: the task's folder.

    Raises:
        UserError: when the list is unreadable or names a file that is not there.
    """
    index = read_msd_index(source)
    cases = []
    for entry in [*index["training"], *index["test"]]:
        pair = entry if isinstance(entry, dict) else {"image": entry}
        image = source / str(pair.get("image"))
        label = source / pair["label"] if "label" in pair else None
        for file in (image, label):
            if file is not None and not file.is_file():
                raise UserError(
                    "a file of dataset.json is missing", file, "the image", "nothing", "unpack the data set again"
                )
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        cases.append(Case(name, name, (Path(os.path.normpath(image)),), label and Path(os.path.normpath(label))))
    if not cases:
        raise UserError("no case found", source / "dataset.json", "training entries", "none", "check --source")
    return cases
