"""The result of ``dcd check``: in memory, in ``check.json``, and as the condition for training."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import DATALIST_FILE, read_datalist
from dcd_ext.data.findings import ERROR, WARNING, Finding
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_json
from dcd_ext.readers import read_json

CHECK_FILE = "check.json"
logger = logging.getLogger(__name__)


@dataclass
class CheckReport:
    """The outcome of a check."""

    datalist: Path
    digest: str  # SHA-256 of the data list
    skipped: list[str]  # checks that were left out
    cases: int  # number of entries
    cache_bytes: int = 0  # memory of a full cache of the training cases
    available_bytes: int = 0  # memory this process may use
    findings: list[Finding] = field(default_factory=list)  # errors first

    def count(self, severity: str) -> int:
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

    def write(self) -> None:
        """Write ``check.json`` next to the data list, where training looks for it; only warns on a read-only folder."""
        try:
            write_json(self.as_dict(), self.datalist.parent / CHECK_FILE)
        except UserError as error:
            logger.warning("the check report is not stored, training will say 'not checked': %s", error)


def read_check(folder: Path) -> dict[str, Any]:
    """The check report of a data set; refused if there is none that belongs to its data list."""
    datalist, file = folder / DATALIST_FILE, folder / CHECK_FILE
    read_datalist(datalist)
    step = f"run: dcd check {datalist}"
    if not file.exists():
        raise UserError("data set not checked", folder, next_step=step)
    report: dict[str, Any] = read_json(file, "check", "check report", step)
    if report["datalist_sha256"] != sha256(datalist):
        raise UserError("the data list changed after its check", folder, next_step=step)
    return report


def require_checked(dataset_dir: str | Path, allow_unchecked: bool = False) -> None:
    """Refuse a data set whose check found errors, unless ``allow_unchecked``; they are then logged as a warning.

    A set that was never checked, or changed since, only gives a warning line: a check costs a pass over all images, and
    small experiments need none.
    """
    folder = Path(dataset_dir)
    read_datalist(folder / DATALIST_FILE)
    try:
        report = read_check(folder)
    except UserError as error:
        logger.warning("%s", error)
        return
    if report["errors"] and not allow_unchecked:
        step = f"see them with: dcd check {folder / DATALIST_FILE}"
        raise UserError("the data check failed", folder / CHECK_FILE, "0 errors", report["errors"], step)
    if report["errors"]:
        logger.warning("training on a data set with %d errors, as asked: %s", report["errors"], folder)
