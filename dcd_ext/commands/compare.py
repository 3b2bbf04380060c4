"""Compare evaluated runs case by case: tables here, and a report as HTML, Markdown and JSON.

A run is a folder in which the bundle's 'evaluating' wrote metrics.json. Runs named teacher and student become the
teacher and the baseline; write name=folder to give a run another name. Folders given one name are trainings of one
method: their spread becomes part of its intervals and p-values, which otherwise leave it out.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from dcd_ext.report import compare, load_runs, write_report
from dcd_ext.tables import to_text

EXAMPLE = "dcd compare runs/teacher runs/student runs/student_dcd --output report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder, or name=folder; two or more")
    page = "HTML page; .md and .json are written next to it"
    parser.add_argument("--output", type=Path, default=Path("report.html"), help=page)
    parser.add_argument("--baseline", metavar="NAME", help="run to test against (default: student, else the first)")
    parser.add_argument("--teacher", metavar="NAME", help="upper end of the recovered gap (default: teacher, if any)")
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="cases to draw (default 3)")
    parser.add_argument("--dataset_dir", help="folder of datalist.json, if the data set was moved")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")


def run(options: argparse.Namespace) -> None:
    with tqdm(total=2, desc="statistics", unit="step", disable=None) as bar:
        runs = load_runs(options.runs)
        comparison = compare(runs, options.baseline, options.teacher, options.seed)
        bar.update()
        bar.set_description("page")
        tables = write_report(runs, comparison, options.output, options.pictures, options.dataset_dir)
        bar.update()
    print("\n\n".join(map(to_text, tables)))
    size = options.output.stat().st_size / 1e6
    print(f"\n{options.output} ({size:.1f} MB), {options.output.with_suffix('.md').name} and .json")
