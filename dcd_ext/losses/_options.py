"""Checks of the options that several losses share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dcd_ext.errors import UserError

__all__ = ["check_choice", "check_classes", "check_count", "check_number", "check_stage_weights"]


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise :class:`UserError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError("unknown option", name, " or ".join(map(repr, choices)), repr(value), "correct the spelling")


def check_number(name: str, value: float, above: float = 0.0, inclusive: bool = False) -> None:
    """Raise :class:`UserError` unless ``value`` is finite and larger than ``above`` (or equal, if ``inclusive``)."""
    if not _is_number(value) or value < above or (value == above and not inclusive):
        sign = ">=" if inclusive else ">"
        raise UserError(
            "option out of range", name, f"a finite number {sign} {above:g}", repr(value), "correct the config"
        )


def check_count(name: str, value: int) -> None:
    """Raise :class:`UserError` unless ``value`` is a whole number from 1."""
    if not _is_whole(value) or value < 1:
        raise UserError("option out of range", name, "a whole number from 1", repr(value), "correct the config")


def check_classes(num_classes: int) -> None:
    """Raise :class:`UserError` unless there are at least two classes, background included."""
    if not _is_whole(num_classes) or num_classes < 2:
        expected = "a whole number from 2, background included"
        raise UserError("invalid number of classes", "num_classes", expected, num_classes, "pass the network's")


def check_stage_weights(weights: Sequence[float] | None, stages: int) -> None:
    """Raise :class:`UserError` unless there is one weight >= 0 per stage (or None for the default)."""
    if weights is None:
        return
    if len(weights) != stages:
        expected = f"{stages}, one per stage"
        raise UserError("wrong number of weights", "stage_weights", expected, len(weights), "list one per tap")
    for i, weight in enumerate(weights):
        check_number(f"stage_weights[{i}]", weight, inclusive=True)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))
