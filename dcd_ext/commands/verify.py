"""Verify a bundle of this project, folder or zip: rebuild its configs from their sources, compare, check the weights."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dcd_ext.bundles.checks import FAILED
from dcd_ext.bundles.inspect import escape
from dcd_ext.bundles.verify import verify
from dcd_ext.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 if a check fails or the bundle is damaged.
    """
    parser = argparse.ArgumentParser(
        prog="dcd verify", description=__doc__, epilog="example: dcd verify dist/hippocampus_segmentation_student_v0.1.0.zip"
    )
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE_OR_ZIP", help="a bundle's folder or zip")
    parser.add_argument("--task", type=Path, metavar="TASK.json", help="task file of bundles of your own task")
    parser.add_argument("--trust", action="store_true", help="execute configs that differ from the sources, too")
    options = parser.parse_args(arguments)
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
                print(escape(str(error)), file=sys.stderr)
                failed += 1
    finally:
        logging.disable(logging.NOTSET)
    print(f"{failed} check(s) failed" if failed else "verified")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
