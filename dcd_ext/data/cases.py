"""Read the ``datalist.json`` of a prepared data set."""

from __future__ import annotations

import logging
import os
from typing import Any

from monai.data import load_decathlon_datalist

from dcd_ext.errors import UserError

__all__ = ["load_cases"]

logger = logging.getLogger(__name__)


def load_cases(dataset_dir: str, section: str, fold: int | str = 0) -> list[dict[str, Any]]:
    """Entries of ``<dataset_dir>/datalist.json`` with resolved paths.

    Args:
        dataset_dir: folder written by ``dcd prepare``.
        section: ``training`` (all folds but ``fold``), ``validation`` (``fold`` only) or ``test``.
        fold: the held-out fold, or ``all`` to hold out none: every case is trained on and validated on.

    Raises:
        UserError: if there is no data list, or the section or the fold is empty.
    """
    path = os.path.join(dataset_dir, "datalist.json")
    if not os.path.isfile(path):
        raise UserError(
            "no data list",
            path,
            "a file written by dcd prepare",
            "no such file",
            "run: dcd prepare <task> --source <data> --output <dataset_dir>",
        )
    key = "test" if section == "test" else "training"
    try:
        cases = load_decathlon_datalist(path, True, key, dataset_dir)
    except (ValueError, IndexError) as e:  # no such key, an empty list
        raise UserError(f"no '{key}' entries", path, f"cases under '{key}'", "none", "prepare the data again") from e
    if section == "test":
        return cases
    if fold == "all":
        if section == "validation":
            logger.warning("fold all: validation scores are those of the training cases")
        return cases
    folds = sorted({case["fold"] for case in cases})
    cases = [case for case in cases if (case["fold"] == fold) == (section == "validation")]
    if not cases:
        step = "--fold all trains and validates on every case"
        if len(folds) == 1:  # whichever fold is asked for, one side stays empty
            raise UserError(f"no {section} case", path, "cases in two folds", f"all in fold {folds[0]}", step)
        step = f"pass --fold with one of them ({step})"
        raise UserError(f"no {section} case", path, f"fold in {folds}", fold, step)
    return cases
