"""What a data set should contain: modalities in channel order and label values, for the sets prepared here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dcd_ext.errors import UserError

__all__ = ["BRATS24", "ISLES22", "TASKS", "Task", "task_by_name"]


@dataclass(frozen=True)
class Task:
    """Modalities and labels of one data set.

    Attributes:
        name: the task's name, as in the bundles' names.
        modalities: names in channel order.
        labels: label value -> class name; 0 is background.
    """

    name: str
    modalities: tuple[str, ...]
    labels: dict[int, str]


BRATS24 = Task("brats24", ("t1n", "t1c", "t2w", "t2f"), {0: "background", 1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"})
ISLES22 = Task("isles22", ("FLAIR", "DWI", "ADC"), {0: "background", 1: "lesion"})
_HIPPOCAMPUS = Task("hippocampus", ("T1",), {0: "background", 1: "Anterior", 2: "Posterior"})
TASKS = {task.name: task for task in (BRATS24, ISLES22, _HIPPOCAMPUS)}


def task_by_name(name: str) -> Task:
    """Look up a task, or read it from a bundle's ``metadata.json``.

    Args:
        name: ``brats24``, ``isles22``, ``hippocampus`` or the path of a bundle's ``metadata.json``.

    Raises:
        UserError: when it is neither, or the file does not describe channels.
    """
    if name in TASKS:
        return TASKS[name]
    path = Path(name)
    try:
        formats = json.loads(path.read_text(encoding="utf-8"))["network_data_format"]
        inputs = formats["inputs"]["image"]["channel_def"]
        outputs = formats["outputs"]["pred"]["channel_def"]
        return Task(path.stem, tuple(inputs[key] for key in sorted(inputs)), {int(k): v for k, v in outputs.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            "unknown task",
            f"--task {name}",
            f"{', '.join(TASKS)} or a bundle's configs/metadata.json",
            f"{type(error).__name__}: {error}",
            "name one of them, or leave --task out to take the labels of the data list",
        ) from error
