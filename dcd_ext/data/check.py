"""Check a data list: read every file once and gather findings."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from dcd_ext.data import check_set
from dcd_ext.data.cases import read_case, read_datalist
from dcd_ext.data.check_case import scan_case
from dcd_ext.data.check_report import CheckReport
from dcd_ext.data.findings import CHECKS, ERROR, Findings
from dcd_ext.data.memory import available_memory
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
    check_set.check_entries(content, findings)
    check_set.check_duplicates(sources, scans, path, findings)
    check_set.check_folds(content, findings)
    check_set.check_classes(task, scans, findings)
    check_set.check_memory(result.cache_bytes, result.available_bytes, path, findings)
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
