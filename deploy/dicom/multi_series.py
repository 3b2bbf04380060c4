"""Segment one MR study with a bundle of several channels, such as brats24: one series per channel."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dcd_ext.errors import UserError
from deploy.dicom.bundle import read_channels
from deploy.dicom.series import channel_patterns

_DEFAULTS = Path(__file__).with_name("brats24_series.json")


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    parser = argparse.ArgumentParser(prog="scripts/monai_deploy.sh multi_series", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--input", type=Path, required=True, help="folder with one study as DICOM files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the DICOM segmentation")
    parser.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="CHANNEL=REGEX",
        help=f"description of a channel's series (defaults for brats24: {_DEFAULTS.name})",
    )
    options = parser.parse_args(arguments)
    try:
        channels = read_channels(options.bundle)
        patterns = channel_patterns(channels, json.loads(_DEFAULTS.read_text("utf-8")), options.series)
        from deploy.dicom.app import run

        print(run(options.bundle.resolve(), patterns, options.input.resolve(), options.output.resolve()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
