"""Compare evaluated runs case by case: tables here, and a report as HTML, Markdown and JSON.

A run is a folder in which the bundle's 'evaluating' wrote metrics.json. Runs named teacher and student become the
teacher and the baseline; write name=folder to give a run another name.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from dcd_ext.io import write_json, write_text
from dcd_ext.report import all_tables, build_page, compare, load_runs
from dcd_ext.tables import to_markdown, to_text

EXAMPLE = "dcd compare runs/teacher runs/student runs/student_dcd --output report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder, or name=folder; two or more")
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="HTML page; .md and .json are written next to it"
    )
    parser.add_argument("--baseline", metavar="NAME", help="run to test against (default: student, else the first)")
    parser.add_argument("--teacher", metavar="NAME", help="upper end of the recovered gap (default: teacher, if any)")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="cases to draw (default 3)")
    parser.add_argument("--dataset_dir", help="folder of datalist.json, if the data set was moved")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")


def run(options: argparse.Namespace) -> int:
    with tqdm(total=2, desc="statistics", unit="step", disable=None) as bar:
        runs = load_runs(options.runs)
        comparison = compare(runs, options.baseline, options.teacher, options.seed)
        bar.update()
        bar.set_description("page")
        page = build_page(runs, comparison, options.pictures, options.dataset_dir)
        bar.update()
    tables = [table for group in all_tables(comparison).values() for table in group]
    title = f"# {comparison['task'] or 'Comparison'}: {', '.join(comparison['runs'])}"
    markdown = "\n\n".join([title, f"{len(comparison['cases'])} cases, mean ± SEM.", *map(to_markdown, tables)]) + "\n"
    write_text(page, options.output)
    write_text(markdown, options.output.with_suffix(".md"))
    write_json(comparison, options.output.with_suffix(".json"))
    print("\n\n".join(map(to_text, tables)))
    print(f"\n{options.output} ({len(page.encode()) / 1e6:.1f} MB), {options.output.with_suffix('.md').name} and .json")
    return 0
