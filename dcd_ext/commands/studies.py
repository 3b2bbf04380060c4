#!/usr/bin/env python3
"""Make the studies folder of MONAI Label from a prepared data set: links, or 4-D files where a case has channels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.data.studies import write_studies
from dcd_ext.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datalist", type=Path, help="datalist.json, or its folder")
    parser.add_argument("--output", type=Path, required=True, help="the studies folder")
    options = parser.parse_args(arguments)
    datalist = options.datalist / "datalist.json" if options.datalist.is_dir() else options.datalist
    try:
        images, labels = write_studies(datalist, options.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{images} images and {labels} labels in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
