"""List what would run if a bundle were run: an inventory of a folder or zip, read without executing any of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.bundles.inspect import inspect
from dcd_ext.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0 whatever the inventory holds, as it is no verdict; 1 if the path is no bundle.
    """
    parser = argparse.ArgumentParser(
        prog="dcd inspect", description=__doc__, epilog="example: dcd inspect downloaded_bundle.zip"
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_OR_ZIP", help="a bundle's folder or zip")
    parser.add_argument("--all", action="store_true", dest="everything", help="every line in full, however many")
    options = parser.parse_args(arguments)
    try:
        lines = inspect(options.bundle, everything=options.everything)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
