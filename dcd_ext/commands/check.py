"""Check a prepared data set before training: prints a table of findings, exits with 1 when there are errors."""

import argparse
from pathlib import Path

from dcd_ext.commands.common import add_datalist
from dcd_ext.data.check import check_datalist
from dcd_ext.data.check_report import CHECKS, ERROR, WARNING, CheckReport
from dcd_ext.data.tasks import TASKS, task_by_name
from dcd_ext.io import write_json
from dcd_ext.tables import Table, to_text

EXAMPLE = "dcd check prepared/brats24"
_SHOWN = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    checks = "\n".join(f"  {name:12} {text}" for name, text in CHECKS.items())
    parser.epilog = f"checks:\n{checks}\n\n{parser.epilog}"
    add_datalist(parser)
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="checks to leave out (logged)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, too, as JSON")
    parser.add_argument("--task", help=f"{', '.join(TASKS)} or a bundle's metadata.json (default: the list's own)")


def run(options: argparse.Namespace) -> int:
    skip = frozenset(name for text in options.skip for name in text.split(",") if name)
    task = task_by_name(options.task) if options.task else None
    report = check_datalist(options.datalist, task, skip)
    report.write()
    if options.output:
        write_json(report.as_dict(), options.output)
    _print(report)
    return 1 if report.count(ERROR) else 0


def _print(report: CheckReport) -> None:
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
