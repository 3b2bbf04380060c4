"""Checks of a whole data list: structure, duplicates, folds, classes, memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dcd_ext.data.check_case import CaseScan, CaseSource
from dcd_ext.data.check_values import OLD_BRATS
from dcd_ext.data.findings import ERROR, WARNING
from dcd_ext.data.memory import CACHE_SHARE
from dcd_ext.data.tasks import Task

__all__ = ["check_classes", "check_duplicates", "check_entries", "check_folds", "check_memory"]

Report = Callable[..., None]


def check_entries(content: dict[str, Any], report: Report) -> None:
    """Entries have image and label, and no key that MONAI's ``Spacingd`` (1.6) takes for metadata of another key.

    Args:
        content: the data list.
        report: takes severity, check, case and the five texts of a finding.
    """
    for section in ("training", "test"):
        for number, entry in enumerate(content.get(section, [])):
            where = f"{section}[{number}]"
            name = str(entry.get("case", where))
            needed = {"image", "label", "fold"} if section == "training" else {"image"}
            if missing := sorted(needed - set(entry)):
                report(ERROR, "datalist", name, "incomplete entry", where, ", ".join(sorted(needed)),
                       f"no {', '.join(missing)}", "complete it, or move an unlabelled case to 'test'")  # fmt: skip
            if bad := sorted(key for key in entry if key.startswith(("image_", "label_"))):
                report(ERROR, "datalist", name, "a key that breaks MONAI's Spacingd", where,
                       "no key that starts with image_ or label_", ", ".join(bad), "rename it")  # fmt: skip
    if not content.get("training"):
        report(WARNING, "datalist", "", "nothing to train on", "training", "labelled cases", "none",
               "fine for inference; otherwise add the masks and prepare again")  # fmt: skip


def _repeated(items: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Owners of each key that has more than one, as key -> owners."""
    owners: dict[str, list[str]] = defaultdict(list)
    for key, owner in items:
        owners[key].append(owner)
    return {key: names for key, names in owners.items() if len(names) > 1}


def check_duplicates(sources: list[CaseSource], scans: list[CaseScan], report: Report) -> None:
    """No case name, file or image content occurs twice: a copy in another fold makes validation too good.

    Args:
        sources: files of every entry.
        scans: their scans, in the same order.
        report: takes severity, check, case and the five texts of a finding.
    """
    step = "remove all but one and prepare again"
    for name in _repeated((source.case, source.case) for source in sources):
        count = sum(source.case == name for source in sources)
        report(ERROR, "duplicate", name, "duplicate case", name, "one entry", count, step)
    for path, names in _repeated((str(f), s.case) for s in sources for f in dict.fromkeys(s.images)).items():
        if len(set(names)) > 1:
            report(ERROR, "duplicate", names[0], "one file in two cases", path, "one case", ", ".join(names), step)
    contents = ((key, s.case) for s, scan in zip(sources, scans, strict=True) for key in scan.contents)
    seen: set[tuple[str, ...]] = set()
    for names in _repeated(contents).values():
        pair = tuple(sorted(set(names)))
        if len(pair) > 1 and pair not in seen:
            seen.add(pair)
            report(ERROR, "duplicate", pair[0], "the same voxels in two cases", " and ".join(pair), "different images",
                   "identical ones", step)  # fmt: skip
    for source in sources:
        for file, count in Counter(source.images).items():
            if count > 1:
                report(ERROR, "modality", source.case, "one file for two modalities", file, "one file each",
                       f"named {count} times", "correct the entry, or prepare again")  # fmt: skip


def check_folds(content: dict[str, Any], report: Report) -> None:
    """Folds are numbers from 0, all used, and no subject lies in two of them.

    Args:
        content: the data list.
        report: takes severity, check, case and the five texts of a finding.
    """
    training = content.get("training", [])
    count = content["folds"]
    used = {fold for fold in range(count) if any(entry.get("fold") == fold for entry in training)}
    folds_of: dict[str, set[str]] = defaultdict(set)
    for entry in training:
        folds_of[str(entry.get("subject", entry.get("case")))].add(str(entry.get("fold")))
    for entry in training:
        if entry.get("fold") in range(count):
            continue
        report(ERROR, "folds", str(entry.get("case")), "no such fold", "fold", f"0 to {count - 1}",
               entry.get("fold"), "prepare the data again")  # fmt: skip
    for subject, folds in folds_of.items():
        if len(folds) > 1:
            report(ERROR, "folds", subject, "a subject in two folds", subject, "one fold",
                   ", ".join(sorted(folds)), "prepare the data again")  # fmt: skip
    empty = sorted(set(range(count)) - used)
    if training and empty:
        report(WARNING, "folds", "", "empty folds", "fold", f"cases in each of {count}",
               f"none in {', '.join(map(str, empty))}", "prepare with fewer --folds")  # fmt: skip


def check_classes(task: Task, scans: list[CaseScan], report: Report) -> None:
    """Every class has voxels somewhere; BraTS masks with the older numbers are named as such.

    Args:
        task: the task's labels.
        scans: scans of all cases.
        report: takes severity, check, case and the five texts of a finding.
    """
    counted = [scan.counts for scan in scans if scan.counts is not None]
    if not counted:
        return
    total = Counter[int]()
    for counts in counted:
        for value, number in counts.items():
            total[round(value)] += number
    old = task.labels.get(3) == "ET" and total[4] > 0 and total[3] == 0
    if old:
        report(ERROR, "labels", "", f"labels look like {OLD_BRATS}", "all masks", "ET = 3 and RC = 4",
               f"value 4 and no value 3 in {len(counted)} masks",
               "change 4 to 3; if these are cavities without any enhancing tumour, --skip labels,classes")  # fmt: skip
    for value, name in task.labels.items():
        if value and not total[value] and not (old and value == 3):
            report(ERROR, "classes", "", f"class {name} is absent from the whole set", "all masks",
                   f"voxels of value {value}", f"none in {len(counted)} masks",
                   "check the label numbers; --skip classes if it is meant")  # fmt: skip


def check_memory(needed: int, available: int, datalist: Path, report: Report) -> None:
    """A full cache fits; otherwise says which part of it does.

    Args:
        needed: bytes of all training cases as float32.
        available: bytes this process may use.
        datalist: named in the finding.
        report: takes severity, check, case and the five texts of a finding.
    """
    if needed > CACHE_SHARE * available:
        rate = int(100 * CACHE_SHARE * available / needed) / 100
        report(WARNING, "memory", "", "a full cache does not fit the memory", datalist,
               f"at most {CACHE_SHARE * available / 2**30:.1f} GiB (80 % of what this process may use)",
               f"{needed / 2**30:.1f} GiB",
               f"nothing, training caches what fits; to set it yourself: --cache_rate {rate:.2f}")  # fmt: skip
