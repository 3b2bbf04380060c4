"""The stored result of ``check_data.py``, and the gate that training passes through."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from dcd_ext.errors import UserError

__all__ = ["CHECK_FILE", "DATALIST_FILE", "datalist_sha256", "require_checked"]

CHECK_FILE = "check.json"
DATALIST_FILE = "datalist.json"
logger = logging.getLogger(__name__)


def datalist_sha256(datalist: Path) -> str:
    """SHA-256 of a data list as hexadecimal digits.

    Args:
        datalist: the ``datalist.json``.

    Raises:
        UserError: when it cannot be read.
    """
    try:
        return hashlib.sha256(datalist.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            "no data list",
            datalist,
            "a file written by prepare_data.py",
            error.strerror or type(error).__name__,
            f"dcd prepare <task> --source DIR --output {datalist.parent}",
        ) from error


def require_checked(dataset_dir: str | Path, allow_unchecked: bool = False) -> None:
    """Refuse a data set whose check found errors.

    A set that was never checked, or changed since, only gives a warning line: a check costs a pass over all images,
    and small experiments need none.

    Args:
        dataset_dir: the folder with ``datalist.json`` and, after a check, ``check.json``.
        allow_unchecked: train all the same; errors are then logged as a warning.

    Raises:
        UserError: when ``check.json`` belongs to this data list and counts errors, or there is no data list.
    """
    folder = Path(dataset_dir)
    digest = datalist_sha256(folder / DATALIST_FILE)
    command = f"dcd check {folder / DATALIST_FILE}"
    try:
        verdict = json.loads((folder / CHECK_FILE).read_text(encoding="utf-8"))
        errors, checked = int(verdict["errors"]), verdict["datalist_sha256"]
    except FileNotFoundError:
        logger.warning("data set not checked: %s – run %s", folder, command)
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("unreadable %s (%s) – run %s", folder / CHECK_FILE, error, command)
        return
    if checked != digest:
        logger.warning("the data list changed after its check: %s – run %s", folder, command)
    elif errors and allow_unchecked:
        logger.warning("training on a data set with %d errors, as asked: %s", errors, folder)
    elif errors:
        raise UserError("the data check failed", folder / CHECK_FILE, "0 errors", errors, f"see them with {command}")
