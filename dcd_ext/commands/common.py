"""Types of command-line options."""

from __future__ import annotations

import argparse

__all__ = ["positive"]


def positive(text: str) -> int:
    """A whole number above 0, for ``type=`` of an option.

    Raises:
        argparse.ArgumentTypeError: for anything else; argparse names the option.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)
