"""Segment one MR series with a bundle of one channel, such as hippocampus."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.errors import UserError
from deploy.dicom.bundle import read_channels


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    parser = argparse.ArgumentParser(prog="scripts/monai_deploy.sh single_series", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--input", type=Path, required=True, help="folder with one study as DICOM files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the DICOM segmentation")
    parser.add_argument(
        "--series", default="", metavar="REGEX", help="description of the series (default: the only one)"
    )
    options = parser.parse_args(arguments)
    try:
        channels = read_channels(options.bundle)
        if len(channels) != 1:
            step = "use multi_series"
            raise UserError("bundle of several channels", options.bundle, "one channel", ", ".join(channels), step)
        from deploy.dicom.app import run

        patterns = {channels[0]: options.series}
        print(run(options.bundle.resolve(), patterns, options.input.resolve(), options.output.resolve()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
