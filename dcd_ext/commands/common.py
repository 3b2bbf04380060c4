"""Arguments that several commands have in common."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

# of an option with a number per axis
AXES: dict[str, Any] = {"nargs": 3, "metavar": ("X", "Y", "Z")}


def positive(text: str) -> int:
    """A whole number above 0, for ``type=`` of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def positive_number(text: str) -> float:
    """A number above 0, for ``type=`` of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def add_jobs(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """``--jobs N``, with None for one process per core."""
    shown = "one per core" if default is None else default
    parser.add_argument("--jobs", type=positive, default=default, metavar="N", help=f"processes (default {shown})")


def add_datalist(parser: argparse.ArgumentParser) -> None:
    """``DATALIST``: the file, also named by its folder."""
    parser.add_argument("datalist", type=_datalist, metavar="DATALIST", help="datalist.json, or its folder")


def _datalist(text: str) -> Path:
    path = Path(text)
    return path / "datalist.json" if path.is_dir() else path


def add_config_entries(parser: argparse.ArgumentParser) -> None:
    """Let any other ``--key value`` through as an entry of the bundle's config, in ``options.config_entries``.

    :func:`dcd_ext.bundles.tools.read_options` reads them.
    """
    parser.set_defaults(config_entries=[])
    parser.epilog = f"Any other --key value is an entry of the bundle's config.\n\n{parser.epilog}"


def raise_failures(errors: Mapping[Path, UserError], total: int) -> None:
    """End with a UserError that names the failed runs, if any; each has been logged with its own."""
    if errors:
        names = ", ".join(map(str, errors))
        what = f"{len(errors)} of {total} runs failed"
        raise UserError(what, names, "none", len(errors), "correct it, then start the same command again")
