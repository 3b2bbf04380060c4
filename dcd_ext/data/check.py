"""Check a data list: each case by itself, then the whole set: its structure, duplicates, folds, classes, memory."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import Case, read_case, read_datalist
from dcd_ext.data.check_case import OLD_BRATS, CaseScan, scan_case
from dcd_ext.data.check_report import CHECKS, ERROR, CheckReport, Findings
from dcd_ext.data.memory import CACHE_SHARE, available_memory
from dcd_ext.data.tasks import Task
from dcd_ext.errors import UserError
from dcd_ext.io import sha256
from dcd_ext.parallel import map_threads

logger = logging.getLogger(__name__)


def check_datalist(path: Path, task: Task | None = None, skip: frozenset[str] = frozenset()) -> CheckReport:
    """Run all checks but those in ``skip``, against ``task`` or else the data list's own modalities and labels."""
    for name in sorted(skip):
        if name not in CHECKS:
            raise UserError("unknown check", "--skip", ", ".join(CHECKS), name, "name one of them")
        logger.warning("check skipped: %s (%s)", name, CHECKS[name])
    content = read_datalist(path)
    training = content["training"]
    entries = [*training, *content["test"]]
    if not entries:
        raise UserError("empty data list", path, "at least one case", "none", "write it with dcd prepare")
    task = task or _task_of(content, path)
    sources = [read_case(entry, path.parent, number) for number, entry in enumerate(entries)]
    scan = partial(scan_case, task=task, skip=skip)
    scans = map_threads(scan, sources, "checking")
    result = CheckReport(path, sha256(path), sorted(skip), len(entries), available_bytes=available_memory())
    result.cache_bytes = sum(scan.cache_bytes for scan in scans[: len(training)])
    findings = Findings(skip)
    _check_entries(content, findings)
    _check_duplicates(sources, scans, path, findings)
    _check_folds(content, findings)
    _check_classes(task, scans, findings)
    _check_memory(result.cache_bytes, result.available_bytes, path, findings)
    # stable: otherwise in the order of the list
    result.findings = sorted(
        [*findings, *(finding for scan in scans for finding in scan.findings)], key=lambda f: f.severity != ERROR
    )
    return result


def _task_of(content: dict[str, Any], path: Path) -> Task:
    if missing := [key for key in ("modality", "labels") if key not in content]:
        what = "the data list does not say what it contains"
        raise UserError(what, path, "'modality' and 'labels'", f"no {missing[0]}", "name it: --task")
    return Task.from_json(content.get("task", ""), content["modality"], content["labels"])


def _check_entries(content: dict[str, Any], findings: Findings) -> None:
    """Entries have image and label, and no key that MONAI's ``Spacingd`` (1.6) takes for metadata of another key."""
    for section in ("training", "test"):
        needed = {"image", "label", "fold"} if section == "training" else {"image"}
        for number, entry in enumerate(content[section]):
            where = f"{section}[{number}]"
            name = str(entry.get("case", where))
            if missing := sorted(needed - set(entry)):
                wanted, found = ", ".join(sorted(needed)), f"no {', '.join(missing)}"
                step = "complete it, or move an unlabelled case to 'test'"
                findings.error("datalist", "incomplete entry", where, wanted, found, step, case=name)
            if bad := ", ".join(sorted(key for key in entry if key.startswith(("image_", "label_")))):
                what, wanted = "a key that breaks MONAI's Spacingd", "no key that starts with image_ or label_"
                findings.error("datalist", what, where, wanted, bad, "rename it", case=name)
    if not content["training"]:
        step = "fine for inference; otherwise add the masks and prepare again"
        findings.warn("datalist", "nothing to train on", "training", "labelled cases", "none", step)


def _check_duplicates(sources: list[Case], scans: list[CaseScan], datalist: Path, findings: Findings) -> None:
    """No case name, file or image content occurs twice: a copy in another fold makes validation too good.

    ``scans`` has the order of ``sources``.
    """
    step = "remove all but one and prepare again"
    for name in _repeated((source.case, source.case) for source in sources):
        findings.error("duplicate", f"duplicate case {name} in {datalist.name}", datalist, "", "", step, case=name)
    for path, names in _repeated((str(f), s.case) for s in sources for f in dict.fromkeys(s.images)).items():
        if len(set(names)) > 1:
            what = f"one file in two cases: {', '.join(names)}"
            findings.error("duplicate", what, path, "", "", step, case=names[0])
    contents = ((key, s.case) for s, scan in zip(sources, scans, strict=True) for key in scan.contents)
    pairs = dict.fromkeys(tuple(sorted(set(names))) for names in _repeated(contents).values())
    for pair in pairs:
        if len(pair) > 1:
            what = f"the same voxels in two cases: {' and '.join(pair)}"
            findings.error("duplicate", what, datalist, "", "", step, case=pair[0])
    for source in sources:
        for file, count in Counter(source.images).items():
            if count > 1:
                again = "correct the entry, or prepare again"
                findings.error("modality", "one file for two modalities", file, "", "", again, case=source.case)


def _repeated(items: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Owners of each key that has more than one, as key -> owners."""
    owners: dict[str, list[str]] = defaultdict(list)
    for key, owner in items:
        owners[key].append(owner)
    return {key: names for key, names in owners.items() if len(names) > 1}


def _check_folds(content: dict[str, Any], findings: Findings) -> None:
    """Folds are numbers from 0, all used, and no subject lies in two of them."""
    training, count = content["training"], content["folds"]
    again = "prepare the data again"
    folds_of: dict[str, set[str]] = defaultdict(set)
    for entry in training:
        fold = entry.get("fold")
        folds_of[str(entry.get("subject", entry.get("case")))].add(str(fold))
        if fold not in range(count):
            case = str(entry.get("case"))
            findings.error("folds", "no such fold", "fold", f"0 to {count - 1}", fold, again, case=case)
    for subject, folds in folds_of.items():
        if len(folds) > 1:
            found = ", ".join(sorted(folds))
            findings.error("folds", "a subject in two folds", subject, "one fold", found, again, case=subject)
    empty = [str(fold) for fold in range(count) if not any(entry.get("fold") == fold for entry in training)]
    # one fold may have become the test part: dcd prepare --test_fold
    if training and len(empty) > any("label" in entry for entry in content["test"]):
        wanted, found = f"cases in each of {count}", f"none in {', '.join(empty)}"
        findings.warn("folds", "empty folds", "fold", wanted, found, "prepare with fewer --folds")


def _check_classes(task: Task, scans: list[CaseScan], findings: Findings) -> None:
    """Every class has voxels somewhere; BraTS masks with the older numbers are named as such."""
    counted = [scan.counts for scan in scans if scan.counts is not None]
    if not counted:
        return
    total = Counter[int]()
    for counts in counted:
        for value, number in counts.items():
            total[round(value)] += number
    old = task.labels.get(3) == "ET" and total[4] > 0 and total[3] == 0
    if old:
        found = f"value 4 and no value 3 in {len(counted)} masks"
        step = "change 4 to 3; if these are cavities without any enhancing tumour, --skip labels,classes"
        findings.error("labels", f"labels look like {OLD_BRATS}", "all masks", "ET = 3 and RC = 4", found, step)
    for value, name in task.labels.items():
        if value and not total[value] and not (old and value == 3):
            what, wanted = f"class {name} is absent from the whole set", f"voxels of value {value}"
            step = "check the label numbers; --skip classes if it is meant"
            findings.error("classes", what, "all masks", wanted, f"none in {len(counted)} masks", step)


def _check_memory(needed: int, available: int, datalist: Path, findings: Findings) -> None:
    """A full cache (``needed`` bytes) fits; otherwise says which part of it does."""
    allowed = CACHE_SHARE * available
    if needed > allowed:
        rate = int(100 * allowed / needed) / 100
        wanted = f"at most {allowed / 2**30:.1f} GiB (80 % of what this process may use)"
        step = f"nothing, training caches what fits; to set it yourself: --cache_rate {rate:.2f}"
        what = "a full cache does not fit the memory"
        findings.warn("memory", what, datalist, wanted, f"{needed / 2**30:.1f} GiB", step)
