"""List what would run if a bundle were run: an inventory of a folder or zip, read without executing any of it.

The exit code is 0 whatever is listed: the inventory is not a verdict.
"""

import argparse
from pathlib import Path

from dcd_ext.bundles.inspect import inspect

EXAMPLE = "dcd inspect downloaded_bundle.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_OR_ZIP", help="a bundle's folder or zip")
    parser.add_argument("--all", action="store_true", dest="everything", help="print all lines in full")


def run(options: argparse.Namespace) -> None:
    print("\n".join(inspect(options.bundle, everything=options.everything)))
