"""Check a data list: read every file once, gather findings, write the verdict that training looks at."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dcd_ext.data import check_set
from dcd_ext.data.check_case import CaseSource, CheckSettings, scan_case
from dcd_ext.data.files import write_json
from dcd_ext.data.findings import CHECKS, ERROR, WARNING, Finding
from dcd_ext.data.memory import available_memory
from dcd_ext.data.parallel import map_threads
from dcd_ext.data.tasks import Task
from dcd_ext.data.verdict import CHECK_FILE, datalist_sha256
from dcd_ext.errors import UserError

__all__ = ["CheckReport", "check_datalist", "read_datalist", "write_verdict"]

logger = logging.getLogger(__name__)


@dataclass
class CheckReport:
    """The outcome of a check.

    Attributes:
        datalist: the file that was checked.
        digest: its SHA-256.
        skipped: checks that were left out.
        cases: number of entries.
        cache_bytes: memory of a full cache of the training cases.
        available_bytes: memory this process may use.
        findings: all problems, errors first.
    """

    datalist: Path
    digest: str
    skipped: list[str]
    cases: int
    cache_bytes: int = 0
    available_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "datalist": str(self.datalist),
            "datalist_sha256": self.digest,
            "errors": self.count(ERROR),
            "warnings": self.count(WARNING),
            "skipped": self.skipped,
            "cases": self.cases,
            "cache_bytes": self.cache_bytes,
            "available_bytes": self.available_bytes,
            "by_check": dict(sorted(Counter(finding.check for finding in self.findings).items())),
            "findings": [finding.as_dict() for finding in self.findings],
        }


def read_datalist(path: Path) -> dict[str, Any]:
    """Read a data list.

    Args:
        path: the ``datalist.json``.

    Raises:
        UserError: when it is missing, not JSON, or not a data list.
    """
    again = "write it with dcd prepare"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            "unreadable data list", path, "a datalist.json", f"{type(error).__name__}: {error}", again
        ) from error
    sections = [content.get(key, []) for key in ("training", "test")] if isinstance(content, dict) else [None]
    if not all(isinstance(section, list) for section in sections):
        raise UserError("not a data list", path, "lists 'training' and 'test'", type(content).__name__, again)
    if not any(sections):
        raise UserError("empty data list", path, "at least one case", "none", again)
    # the Decathlon writes test cases as bare file names
    content["test"] = [e if isinstance(e, dict) else {"image": e} for e in content.get("test", [])]
    if not all(isinstance(entry, dict) for entry in content.get("training", [])):
        raise UserError("not a data list", path, "entries with image, label, case and fold", "something else", again)
    if not isinstance(content.setdefault("folds", 5), int) or content["folds"] < 1:
        raise UserError("not a data list", path, "'folds' as a number", content["folds"], again)
    return content


def task_of(content: dict[str, Any], path: Path) -> Task:
    """The task a data list describes in its own ``modality`` and ``labels``.

    Args:
        content: the data list.
        path: named in the error.

    Raises:
        UserError: when they are missing.
    """
    try:
        channels = content["modality"]
        names = tuple(str(channels[key]) for key in sorted(channels, key=int))
        return Task(str(content.get("task", "")), names, {int(k): str(v) for k, v in content["labels"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "the data list does not say what it contains",
            path,
            "'modality' and 'labels'",
            repr(error),
            "name it: --task",
        ) from error


def _source(entry: dict[str, Any], number: int, folder: Path) -> CaseSource:
    """Files of an entry, resolved as ``load_decathlon_datalist`` does."""
    images = entry.get("image", [])
    files = tuple(folder / str(name) for name in (images if isinstance(images, list) else [images]))
    label = folder / str(entry["label"]) if entry.get("label") else None
    return CaseSource(str(entry.get("case", files[0].name if files else number)), files, label)


def check_datalist(
    path: Path, task: Task | None = None, tolerance_mm: float = 0.1, skip: frozenset[str] = frozenset()
) -> CheckReport:
    """Run all checks.

    Args:
        path: the ``datalist.json``.
        task: what to check against; None takes the data list's own modalities and labels.
        tolerance_mm: allowed distance at the farthest corner of two grids of a case.
        skip: names of checks to leave out, keys of ``CHECKS``.

    Raises:
        UserError: for an unknown name in ``skip`` or an unusable data list.
    """
    for name in sorted(skip):
        if name not in CHECKS:
            raise UserError("unknown check", "--skip", ", ".join(CHECKS), name, "name one of them")
        logger.warning("check skipped: %s (%s)", name, CHECKS[name])
    content = read_datalist(path)
    settings = CheckSettings(task or task_of(content, path), tolerance_mm, skip)
    training = content.get("training", [])
    entries = [*training, *content["test"]]
    sources = [_source(entry, number, path.parent) for number, entry in enumerate(entries)]
    result = CheckReport(path, datalist_sha256(path), sorted(skip), len(entries))

    def report(severity: str, check: str, case: str, *texts: object) -> None:
        if check not in skip:
            result.findings.append(Finding(severity, check, case, *(str(text) for text in texts)))

    scans = map_threads(partial(scan_case, settings=settings), sources, "checking")
    result.cache_bytes = sum(scan.cache_bytes for scan in scans[: len(training)])
    result.available_bytes = available_memory()
    check_set.check_entries(content, report)
    check_set.check_duplicates(sources, scans, report)
    check_set.check_folds(content, report)
    check_set.check_classes(settings.task, scans, report)
    check_set.check_memory(result.cache_bytes, result.available_bytes, path, report)
    result.findings += [finding for scan in scans for finding in scan.findings]
    result.findings.sort(key=lambda finding: finding.severity != ERROR)  # stable: otherwise in the order of the list
    return result


def write_verdict(report: CheckReport) -> None:
    """Write ``check.json`` next to the data list, where training looks for it; only warns on a read-only folder.

    Args:
        report: the outcome.
    """
    try:
        write_json(report.datalist.parent / CHECK_FILE, report.as_dict())
    except UserError as error:
        logger.warning("the verdict is not stored, training will say 'not checked': %s", error)
