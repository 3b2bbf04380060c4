#!/usr/bin/env python3
"""Check a prepared data set before training: prints a table of findings, exits with 1 when there are errors."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dcd_ext.data.check import check_datalist
from dcd_ext.data.check_report import CheckReport
from dcd_ext.data.findings import CHECKS, ERROR, WARNING
from dcd_ext.data.tasks import TASKS, task_by_name
from dcd_ext.errors import UserError
from dcd_ext.io import write_json
from dcd_ext.tables import Table, to_text

_SHOWN = 100


def _parser() -> argparse.ArgumentParser:
    """The command line; its help lists every check."""
    checks = "\n".join(f"  {name:12} {text}" for name, text in CHECKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"checks:\n{checks}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datalist", type=Path, help="datalist.json, or its folder")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="checks to leave out (logged)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--task", help=f"{', '.join(TASKS)} or a bundle's metadata.json (default: the list's own)")
    parser.add_argument("--tolerance-mm", type=float, default=0.1, help="at the farthest corner (default 0.1)")
    return parser


def _print(report: CheckReport) -> None:
    """Print the table of findings and one closing line."""
    rows = [[f.severity, f.check, f.case, f.message()] for f in report.findings]
    if rows:
        print(to_text(Table("", ["severity", "check", "case", "finding"], rows[:_SHOWN])))
        if len(rows) > _SHOWN:
            print(f"… and {len(rows) - _SHOWN} more in the JSON report")
        print()
    gib = 2**30
    print(f"full cache {report.cache_bytes / gib:.2f} GiB, available {report.available_bytes / gib:.1f} GiB")
    if report.skipped:
        print(f"skipped: {', '.join(report.skipped)}")
    print(f"{report.cases} cases: {report.count(ERROR)} errors, {report.count(WARNING)} warnings")


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 when there are errors, in the data or in the call.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    datalist = options.datalist / "datalist.json" if options.datalist.is_dir() else options.datalist
    skip = frozenset(name for text in options.skip for name in text.split(",") if name)
    try:
        task = task_by_name(options.task) if options.task else None
        report = check_datalist(datalist, task, options.tolerance_mm, skip)
        _print(report)
        report.write()
        if options.json:
            write_json(report.as_dict(), options.json)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 1 if report.count(ERROR) else 0


if __name__ == "__main__":
    sys.exit(main())
