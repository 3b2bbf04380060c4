"""Verify a bundle, folder or zip, packed or not: prints one line per check, exits with 1 if one fails."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dcd_ext.bundles.checks import FAILED
from dcd_ext.bundles.verify import verify
from dcd_ext.errors import UserError

EXAMPLE = "dcd verify dist/hippocampus_segmentation_student_v0.1.0.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE_OR_ZIP", help="a bundle's folder or zip")
    parser.add_argument("--dataset_dir", type=Path, help="prepared data of the task: run the README's commands, too")


def run(options: argparse.Namespace) -> int:
    """Check; 1 if a check fails or a bundle is damaged."""
    data, failed = options.dataset_dir, 0
    if data and not (data / "datalist.json").is_file():
        raise UserError("no prepared data", data, "datalist.json", "none", "run dcd prepare")
    logging.disable(logging.WARNING)
    try:
        for path in options.bundles:
            print(path)
            try:
                for result in verify(path, data):
                    print(f"  {result.status:8} {result.check:12} {result.detail}")
                    failed += result.status == FAILED
            except UserError as error:  # the next one may be whole
                print(f"error: {error}", file=sys.stderr)
                failed += 1
    finally:
        logging.disable(logging.NOTSET)
    print(f"{failed} check(s) failed" if failed else "verified")
    return 1 if failed else 0
