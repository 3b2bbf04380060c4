#!/usr/bin/env python3
"""Audit a bundle without executing it: prints what is not on the allow-list, exits with 1 if anything is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.audit.bundle import audit
from dcd_ext.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0 if nothing was found, 1 if something was, 2 if the bundle cannot be read.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE_OR_ZIP", help="a bundle's folder or zip")
    options = parser.parse_args(arguments)
    total = 0
    try:
        for path in options.bundles:
            findings = audit(path)
            total += len(findings)
            for finding in findings:
                print(finding if len(options.bundles) == 1 else f"{path.name}: {finding}")
            print(f"{path}: {len(findings)} finding(s)" if findings else f"{path}: nothing found")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if total:
        print("Read each place before you run the bundle; docs/share.md says what the findings mean.")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
