"""The result of ``dcd check``: its findings, in memory, in ``check.json``, and as the condition for training."""

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import DATALIST_FILE, read_datalist
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_json
from dcd_ext.readers import read_json

CHECK_FILE = "check.json"
logger = logging.getLogger(__name__)

ERROR, WARNING = "error", "warning"

CHECKS: dict[str, str] = {
    "datalist": "entries have what they need and nothing that breaks MONAI",
    "readable": "every file is there and can be read to its end",
    "dtype": "voxels are plain numbers",
    "dimensions": "volumes are 3D, or 4D with one volume per modality",
    "modality": "every modality is there, once",
    "shape": "files of a case have the same shape",
    "spacing": "files of a case have the same voxel spacing",
    "orientation": "files of a case have the same axis directions",
    "affine": "files of a case lie at the same place, within 0.1 mm at the farthest corner",
    "finite": "no infinity, and no NaN but in images, where it is read as 0",
    "constant": "images are not constant",
    "integers": "label values are whole numbers, within 0.001",
    "labels": "label values belong to the task",
    "empty": "masks are not empty",
    "classes": "every class occurs somewhere in the set",
    "duplicate": "no case, file or image content occurs twice",
    "folds": "folds are complete and do not split a subject",
    "memory": "a full cache fits the memory this process may use",
}


@dataclass(frozen=True)
class Finding:
    """One problem; its last five texts are those of :class:`UserError`."""

    severity: str  # ERROR: training refuses the set; or WARNING
    check: str  # a key of CHECKS
    case: str  # "" for the whole set
    what: str
    where: str
    expected: str
    found: str
    next_step: str

    def message(self) -> str:
        """The finding as one line, in the shape of ``UserError``."""
        return str(UserError(self.what, self.where, self.expected, self.found, self.next_step))

    def as_dict(self) -> dict[str, Any]:
        """The finding for JSON, its line included."""
        return asdict(self) | {"message": self.message()}


class Findings(list[Finding]):
    """Collects findings, but for skipped checks; they belong to ``case`` unless they name another.

    ``error`` and ``warn`` take a key of ``CHECKS``, then what, where, expected, found and next step.
    """

    def __init__(self, skip: frozenset[str] = frozenset(), case: str = "") -> None:
        super().__init__()
        self.skip = skip
        self.case = case

    def _add(self, severity: str, check: str, *texts: object, case: str | None = None) -> None:
        if check not in self.skip:
            self.append(Finding(severity, check, self.case if case is None else case, *map(str, texts)))

    error = partialmethod(_add, ERROR)
    warn = partialmethod(_add, WARNING)


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
