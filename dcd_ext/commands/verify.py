"""Verify a bundle of this project: rebuild its configs from their sources, compare them, check files and weights.

Prints one line per check and ends with 1 if one fails. Networks are built and configs executed only if the configs are
identical to the rebuilt ones, or with --trust. No check starts a program.
"""

import argparse
import logging
import sys
from pathlib import Path

from dcd_ext.bundles.checks import FAILED
from dcd_ext.bundles.verify import verify
from dcd_ext.errors import UserError, escape

EXAMPLE = "dcd verify dist/hippocampus_segmentation_student_v0.1.0.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE_OR_ZIP", help="a bundle's folder or zip")
    parser.add_argument("--task", type=Path, metavar="TASK.json", help="task file of bundles of your own task")
    parser.add_argument("--trust", action="store_true", help="also execute configs that differ from the sources")


def run(options: argparse.Namespace) -> int:
    failed = 0
    logging.disable(logging.WARNING)
    try:
        for path in options.bundles:
            print(path)
            try:
                for result in verify(path, options.task, options.trust):
                    print(f"  {result.status:8} {result.check:12} {escape(result.detail)}")
                    print("".join(f"    {escape(line)}\n" for line in result.lines), end="")
                    failed += result.status == FAILED
            except UserError as error:  # the next one may be whole
                print(f"error: {error}", file=sys.stderr)
                failed += 1
    finally:
        logging.disable(logging.NOTSET)
    print(f"{failed} check(s) failed" if failed else "verified")
    return 1 if failed else 0
