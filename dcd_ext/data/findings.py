"""What a data check finds: the names of the checks, one finding, and the list that collects them."""

from dataclasses import asdict, dataclass
from functools import partialmethod
from typing import Any

from dcd_ext.errors import UserError

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
