"""Find cases in the folder layouts as published: BraTS 2023/2024, ISLES-2022 and the Decathlon."""

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import Case
from dcd_ext.data.tasks import BRATS24, ISLES22
from dcd_ext.errors import UserError, refuse_unlisted
from dcd_ext.inference.names import case_names
from dcd_ext.readers import read_json

_BRATS_CASE = re.compile(r"BraTS-[A-Za-z]+-\d{5}-\d{3}$")
_ISLES_CASE = re.compile(r"sub-strokecase\d{4}$")
NIFTI = (".nii.gz", ".nii")


def find_brats(source: Path) -> list[Case]:
    """Find BraTS 2023/2024 cases: ``BraTS-GLI-00001-000/BraTS-GLI-00001-000-{t1n,t1c,t2w,t2f,seg}.nii.gz``.

    ``BraTS-GLI-00001-000`` and ``-001`` are two time points of the subject ``BraTS-GLI-00001``. Case folders may lie
    at any depth. Refused if there is no case, a modality is missing or double, or a case name occurs twice.
    """
    cases = []
    for folder in _case_folders(source, _BRATS_CASE, "folders such as BraTS-GLI-00001-000 (BraTS 2023 or later)"):
        name = folder.name
        images = tuple(_one_file(folder, f"-{m}", name, m) for m in BRATS24.modalities)
        label = _one_file(folder, "-seg", name, "seg") if _files(folder, "-seg") else None
        cases.append(Case(name, name.rpartition("-")[0], images, label))
    return cases


def find_isles(source: Path) -> list[Case]:
    """Find ISLES-2022 cases: ``sub-strokecaseNNNN/ses-0001/{anat,dwi}`` and their masks below ``derivatives``.

    Their images are FLAIR, DWI, ADC as published, each on its own grid; refused if one is missing or double.
    """
    files = {"FLAIR": ("anat", "_FLAIR"), "DWI": ("dwi", "_dwi"), "ADC": ("dwi", "_adc")}
    cases = []
    skip = ("derivatives", "on_flair")
    for folder in _case_folders(source, _ISLES_CASE, "folders such as sub-strokecase0001", skip):
        name, session = folder.name, folder / "ses-0001"
        images = tuple(_one_file(session / files[m][0], files[m][1], name, m) for m in ISLES22.modalities)
        masks = folder.parent / "derivatives" / name / "ses-0001"
        label = _one_file(masks, "_msk", name, "mask") if _files(masks, "_msk") else None
        cases.append(Case(name, name, images, label))
    return cases


def _case_folders(source: Path, pattern: re.Pattern[str], expected: str, skip: Sequence[str] = ()) -> list[Path]:
    """Folders below ``source`` whose name matches, sorted by name; archives unpack with a varying number of levels.

    Links are followed, but into no folder twice.
    """
    if not source.is_dir():
        raise UserError("no such folder", source, "the unpacked data set", "nothing", "check --source")
    found: list[Path] = []
    seen: set[str] = set()
    for folder, names, _ in os.walk(source, onerror=refuse_unlisted, followlinks=True):
        place = os.path.realpath(folder)
        found += [Path(folder) / name for name in names if pattern.match(name) and place not in seen]
        others = (n for n in names if not pattern.match(n) and not n.startswith(".") and n not in skip)
        names[:] = () if place in seen else sorted(others)
        seen.add(place)
    found.sort(key=lambda path: (path.name, str(path)))
    for first, second in itertools.pairwise(found):
        if first.name == second.name:
            raise UserError(f"duplicate case {first.name}", f"{first} and {second}", next_step="remove or move one")
    if not found:
        there = sorted(p.name for p in source.iterdir() if not p.name.startswith("."))
        shown = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise UserError("no case found", source, expected, shown or "an empty folder", "check --source and the task")
    return found


def _one_file(folder: Path, ending: str, case: str, name: str) -> Path:
    """The only file in ``folder`` that ends with ``ending`` and a NIfTI suffix."""
    files = _files(folder, ending)
    if len(files) == 1:
        return files[0]
    what = f"case {case}: {'more than one' if files else 'no'} {name}"
    found = ", ".join(file.name for file in files) or "none"
    raise UserError(what, folder, f"one *{ending}.nii.gz", found, "complete the case, or move it out of --source")


def _files(folder: Path, ending: str) -> list[Path]:
    """NIfTI files in ``folder`` whose stem ends with ``ending``; hidden files (``._x`` of macOS) do not count."""
    if not folder.is_dir():
        return []
    endings = tuple(ending + suffix for suffix in NIFTI)
    return sorted(f for f in folder.iterdir() if f.name.endswith(endings) and not f.name.startswith("."))


def read_msd_index(source: Path) -> dict[str, Any]:
    """``dataset.json`` of a Decathlon task."""
    path = source / "dataset.json"
    step = "check --source, or fetch the data with: dcd prepare msd --download Task04_Hippocampus"
    index = read_json(path, "datalist", "Decathlon index", step)
    for key in ("training", "modality", "labels"):
        if key not in index:
            raise UserError("no Decathlon index", path, f"an entry '{key}'", "none", step)
    return {"test": [], "name": source.name, **index}


def find_msd(source: Path) -> list[Case]:
    """Find the cases that a Decathlon ``dataset.json`` lists; what differs in the paths of their images names them.

    Refused if the list is unreadable or names a file twice, or one that is not there.
    """
    index = read_msd_index(source)
    found: list[tuple[Path, Path | None]] = []
    for entry in [*index["training"], *index["test"]]:
        pair = entry if isinstance(entry, dict) else {"image": entry}
        image = Path(os.path.normpath(source / str(pair.get("image"))))
        label = Path(os.path.normpath(source / pair["label"])) if "label" in pair else None
        for file in filter(None, (image, label)):
            if not file.is_file():
                step = "unpack the data set again"
                raise UserError("a file of dataset.json is missing", file, "the image", "nothing", step)
        found.append((image, label))
    if not found:
        raise UserError("no case found", source / "dataset.json", "training entries", "none", "check --source")
    names = case_names([image for image, _ in found])
    return [Case(name, name, (image,), label) for name, (image, label) in zip(names, found, strict=True)]
