"""What a data set of one's own says about itself: a Decathlon or nnU-Net folder, or a prepared data list."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import DATALIST_FILE, Case, read_case, read_datalist, require_entries
from dcd_ext.data.layouts import NIFTI, find_msd, read_msd_index
from dcd_ext.data.tasks import Task
from dcd_ext.errors import UserError
from dcd_ext.readers import read_json


@dataclass(frozen=True)
class DataSet:
    """Channels, labels and cases, and the command that prepares them for training."""

    source: Path
    task: Task
    cases: list[Case]
    prepare: str


def read_dataset(source: Path) -> DataSet:
    """A data set in one of three layouts, with names for its channels and labels, and two labelled cases at least.

    ``source`` is a folder with ``dataset.json`` (Decathlon or nnU-Net) or ``datalist.json``, or one of these files.
    """
    folder = source.parent if source.is_file() else source
    file = source if source.is_file() else folder / DATALIST_FILE
    if file.is_file() and file.name != "dataset.json":
        found = _prepared(file)
    elif (index := _index(folder)).get("channel_names"):
        found = read_nnunet(folder, index)
    else:
        index = read_msd_index(folder)
        task = Task.from_json(str(index["name"]), index["modality"], index["labels"])
        found = DataSet(folder, task, find_msd(folder), f"dcd prepare msd --source {folder.resolve().name}")
    labels, where = found.task.labels, found.source
    if sorted(labels) != list(range(len(labels))) or len(labels) < 2 or not all(n.strip() for n in labels.values()):
        shown = ", ".join(f"{value} {name}" for value, name in sorted(labels.items())) or "none"
        step = "name every value in 'labels', or renumber the label files"
        raise UserError("missing names of labels", where, "names of 0 (background), 1, 2 …", shown, step)
    if not found.task.modalities:
        raise UserError("missing names of channels", where, "at least one", "none", "name them")
    if sum(case.label is not None for case in found.cases) < 2:
        raise UserError("too few labelled cases", where, "two or more, one of them to validate on", 1, "add cases")
    for file in (image for case in found.cases for image in case.images):
        if not file.name.endswith(NIFTI):
            raise UserError("not NIfTI", where, " or ".join(NIFTI), file.name, "convert the images")
    return found


def _index(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    content = read_json(path, None, "data set", "pass a folder with a readable dataset.json or datalist.json")
    if not (isinstance(content, dict) and isinstance(content.get("labels"), dict) and content["labels"]):
        raise UserError("missing names of labels", path, "'labels' with a name of every value", "none", "add them")
    return content


def _prepared(file: Path) -> DataSet:
    content = read_datalist(file)
    for key in ("modality", "labels"):
        if not (isinstance(content.get(key), dict) and all(name.isdecimal() for name in content[key])):
            raise UserError(f"missing names of {key}", file, f"'{key}' with numbered names", "none", "add them")
    for section in ("training", "test"):
        require_entries(content[section], f"{file}, {section}", ("image",))
    cases = [read_case(entry, file.parent) for entry in [*content["training"], *content["test"]]]
    name = str(content.get("task", content.get("name", file.resolve().parent.name)))
    task = Task.from_json(name, content["modality"], content["labels"])
    return DataSet(file, task, cases, f"dcd check {file.resolve().parent.name}/{file.name}")


def read_nnunet(folder: Path, index: dict[str, Any] | None = None) -> DataSet:
    """A raw data set of nnU-Net: ``imagesTr/<case>_0000.nii.gz`` …, ``labelsTr/<case>.nii.gz``; also ``imagesTs``.

    Refused if a file is missing, or something in it has no counterpart here.
    """
    index, path = index or _index(folder), folder / "dataset.json"
    ending, labels = str(index.get("file_ending", ".nii.gz")), index["labels"]
    if ending not in NIFTI:
        raise UserError("not NIfTI", path, " or ".join(NIFTI), ending, "convert the images")
    regions = [name for name, value in labels.items() if not isinstance(value, int) or name == "ignore"]
    regions += [name for name, value in labels.items() if list(labels.values()).count(value) > 1]
    if regions:
        step = "number every label once; of a trained network: dcd import-nnunet"
        raise UserError("labels that overlap or are ignored", path, "one whole number per label", regions[0], step)
    channels = {str(number): name for number, name in index["channel_names"].items()}
    cases = raw_cases(folder, len(channels), ending)
    task = Task.from_json(folder.resolve().name, channels, {str(value): name for name, value in labels.items()})
    return DataSet(path, task, cases, f"dcd prepare nnunet --source {folder.resolve().name}")


def raw_cases(folder: Path, channels: int, ending: str) -> list[Case]:
    """Cases of ``imagesTr`` with their labels, then those of ``imagesTs``: ``<case>_0000.nii.gz``, a file per channel.

    Refused if there is none to train on, or a file is missing.
    """
    first = f"_0000{ending}"
    cases = []
    for part in ("Tr", "Ts"):
        names = sorted(f.name.removesuffix(first) for f in (folder / f"images{part}").glob(f"[!.]*{first}"))
        if part == "Tr" and not names:
            raise UserError("no case found", folder / "imagesTr", f"files <case>{first}", "none", "check the data set")
        for name in names:
            images = tuple(folder / f"images{part}" / f"{name}_{channel:04d}{ending}" for channel in range(channels))
            label = folder / "labelsTr" / f"{name}{ending}" if part == "Tr" else None
            for file in filter(None, (*images, label)):
                if not os.path.isfile(file):
                    raise UserError(f"case {name} is incomplete", file, "a file", "none", "add it, or remove the case")
            cases.append(Case(name, name, images, label))
    return cases
