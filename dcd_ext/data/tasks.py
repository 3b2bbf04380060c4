"""What a data set should contain: modalities in channel order and label values, for the sets prepared here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.readers import read_json


@dataclass(frozen=True)
class Task:
    """Modalities and labels of one data set."""

    name: str  # as in the bundles' names
    modalities: tuple[str, ...]  # in channel order
    labels: dict[int, str]  # label value -> class name; 0 is background

    @classmethod
    def from_json(cls, name: str, channels: Mapping[str, Any], labels: Mapping[str, Any]) -> "Task":
        """A task from mappings whose keys are numbers as text, as in ``datalist.json`` and ``metadata.json``."""
        return cls(name, channel_names(channels), {int(value): str(label) for value, label in labels.items()})


def channel_names(channels: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in the order of their numbers: "10" comes after "9"."""
    return tuple(str(channels[key]) for key in sorted(channels, key=int))


BRATS24 = Task("brats24", ("t1n", "t1c", "t2w", "t2f"), {0: "background", 1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"})
ISLES22 = Task("isles22", ("FLAIR", "DWI", "ADC"), {0: "background", 1: "lesion"})
_HIPPOCAMPUS = Task("hippocampus", ("T1",), {0: "background", 1: "Anterior", 2: "Posterior"})
TASKS = {task.name: task for task in (BRATS24, ISLES22, _HIPPOCAMPUS)}


def task_by_name(name: str) -> Task:
    """A task by its name, or from the path of a bundle's ``metadata.json``; refused where that lists no channels."""
    if name in TASKS:
        return TASKS[name]
    expected = f"{', '.join(TASKS)} or a bundle's configs/metadata.json"
    step = "name one of them, or leave --task out to take the labels of the data list"
    path = Path(name)
    if not path.is_file():
        raise UserError("unknown task", f"--task {name}", expected, "neither", step)
    formats = read_json(path, "metadata", "metadata of a bundle", step).get("network_data_format", {})
    try:
        inputs, outputs = formats["inputs"]["image"]["channel_def"], formats["outputs"]["pred"]["channel_def"]
    except KeyError as error:
        raise UserError("unknown task", path, f"an entry {error} in network_data_format", "none", step) from error
    return Task.from_json(path.stem, inputs, outputs)
