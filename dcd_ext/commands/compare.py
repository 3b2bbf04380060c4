#!/usr/bin/env python3
"""Compare evaluated runs case by case: tables here, and a report as HTML, Markdown and JSON.

A run is a folder in which the bundle's 'evaluating' wrote metrics.json. Runs named teacher and student become the
teacher and the baseline; write name=folder to give a run another name.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.errors import UserError
from dcd_ext.io import write_atomically, write_json
from dcd_ext.report import all_tables, build_page, compare, load_runs
from dcd_ext.tables import to_markdown, to_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder, or name=folder; two or more")
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="the page; .md and .json lie beside it"
    )
    parser.add_argument("--baseline", metavar="NAME", help="run to test against (default: student, else the first)")
    parser.add_argument("--teacher", metavar="NAME", help="run at the end of the gap (default: teacher, if there)")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="cases to draw (default 3)")
    parser.add_argument("--dataset_dir", help="folder of datalist.json, if the data set was moved")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 when the runs cannot be compared.
    """
    options = _parser().parse_args(arguments)
    try:
        runs = load_runs(options.runs)
        comparison = compare(runs, options.baseline, options.teacher, options.seed)
        page = build_page(runs, comparison, options.pictures, options.dataset_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables = [table for group in all_tables(comparison).values() for table in group]
    title = f"# {comparison['task'] or 'Comparison'}: {', '.join(comparison['runs'])}"
    markdown = "\n\n".join([title, f"{len(comparison['cases'])} cases, mean ± SEM.", *map(to_markdown, tables)]) + "\n"
    write_atomically(options.output, lambda name: Path(name).write_text(page, "utf-8"))
    write_atomically(options.output.with_suffix(".md"), lambda name: Path(name).write_text(markdown, "utf-8"))
    write_json(comparison, options.output.with_suffix(".json"))
    print("\n\n".join(map(to_text, tables)))
    print(f"\n{options.output} ({len(page.encode()) / 1e6:.1f} MB), {options.output.with_suffix('.md').name} and .json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
