"""Validation of options that users set in configs or on the command line; an error is one line."""

import math
from collections.abc import Sequence

from dcd_ext.errors import UserError


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise :class:`UserError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError("unknown option", name, " or ".join(map(repr, choices)), repr(value), "correct the spelling")


def check_number(name: str, value: float, inclusive: bool = False) -> None:
    """Raise :class:`UserError` unless ``value`` is finite and larger than 0 (or 0, if ``inclusive``)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (value == 0 and not inclusive):
        expected = f"a finite number {'>=' if inclusive else '>'} 0"
        raise UserError("option out of range", name, expected, repr(value), "correct the config")


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Raise :class:`UserError` unless ``value`` is a whole number from ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        expected = f"a whole number from {least}"
        raise UserError("option out of range", name, expected, repr(value), "correct the config")
