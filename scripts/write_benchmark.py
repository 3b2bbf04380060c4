"""Write docs/results/benchmark.md and the README's tables from ``benchmarks/results``; OUTPUT's runs are copied first.

What is copied are the records: ``metrics.json``, ``training.json`` and ``run.json``, without paths of the machine.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dcd_ext.bundles.runs import refuse_other_options
from dcd_ext.bundles.suites import read_suite, suite_runs
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_json, write_text
from dcd_ext.report import all_tables
from dcd_ext.tables import Table, to_markdown
from scripts.benchmark import ROOT, insert

_INTRO = """# Benchmark on real MRI

Does distillation help? Every method trains the same student on the same cases; the teacher of the hippocampus is the
shipped one. The data are split once: a training part, a selection part that chose each training's epoch, and a **test
part that chose nothing**. Only scores of the test part are results.
"""
_NOTE = """Shown are the teacher, the plain student and, of the distilled ones with most trainings, the best on the
selection part. ±: standard error over cases (one training) or standard deviation over trainings; NSD at 1 mm, of
LPBA40 and TCGA-LGG at 2 mm (the latter's voxel size is unknown); gap
recovered: share of the way from the plain student to the teacher; `r4` and `smallest`: widths divided by 4 and by 8."""
_MANY = 5  # classes of which tables show only the mean
_COMMANDS = """## Commands

The data of each suite are prepared as [benchmarks/README.md](../../benchmarks/README.md) says. Then:

```
{commands}
```

`dcd benchmark` goes on where it was stopped, and writes these tables with every other metric and plots to
`<output>/<student>_test.html`; `--tables` writes them again from what is finished. Folders that were filled on several
machines are merged by copying; an unfinished training goes on only with its data and its teacher where they were.

Of several trainings, tables show means and standard deviations over trainings, and tests count trainings and cases as
random ([evaluate.md](../evaluate.md)). This page is written by `scripts/write_benchmark.py` from `benchmarks/results`.
"""


def finished_runs(output: Path) -> Iterator[Path]:
    """Folders of runs with the scores of the test part."""
    return (path.parents[1].relative_to(output) for path in sorted(output.glob("**/seed*/test/metrics.json")))


def without_paths(value: Any) -> Any:
    """A record in which files and folders have only their names."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "bundles/")) else value


def require_suite(suite: Path, output: Path) -> None:
    """Refuse a folder without finished runs, or of another suite, before anything is copied."""
    if suite.resolve().parent != ROOT / "benchmarks":
        raise UserError("a suite that is no part of the page", suite, "one of benchmarks/", "", "correct --suite")
    runs = {run.folder: run for run in suite_runs(read_suite(suite), output)}
    finished = [output / run for run in finished_runs(output)]
    if not finished:
        raise UserError("no finished run", output, "a folder of dcd benchmark", "none in it", "correct OUTPUT")
    for folder in finished:
        if folder not in runs:
            raise UserError("a run of another suite", folder, f"a run of {suite}", "none", "correct --suite")
        refuse_other_options(runs[folder])


def copy_runs(output: Path, results: Path) -> int:
    """Copy the records of all finished runs; returns their number."""
    runs = list(finished_runs(output))
    for run in runs:
        for file in (output / run).rglob("*.json"):
            if file.name in ("metrics.json", "training.json", "run.json"):
                record = json.loads(file.read_text("utf-8"))
                write_json(without_paths(record), results / run / file.relative_to(output / run))
    return len(runs)


def comparisons(suite: Path, results: Path) -> dict[str, dict[str, Any]]:
    """What ``dcd benchmark --tables`` writes of the results: student_part -> comparison."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "runs")
        shutil.copytree(results, folder)
        command = [sys.executable, "-m", "dcd_ext", "benchmark", str(suite), "--output", str(folder), "--tables"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise UserError("no tables", results, "exit code 0", done.stderr.strip().splitlines()[-1:], "see above")
        return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def overall(comparison: dict[str, Any]) -> str:
    """What stands for all classes: their mean, or the only one."""
    return "mean" if "mean" in comparison["results"]["dice"] else comparison["classes"][0]


def main_table(comparison: dict[str, Any], per_class: bool = True) -> Table:
    """One row per method, as in the paper's Table 1; few classes also each for itself."""
    several, classes = comparison["several_trainings"], comparison["classes"]
    mean = overall(comparison)
    if not per_class or len(classes) > _MANY:
        classes = ["mean"]
    columns = [("dice", mean if name == "mean" else name, 4) for name in classes]
    columns += [("hd95_mm", mean, 2), ("nsd", mean, 4)]
    titles = [*(f"Dice {name}" for name in classes), "HD95 mm", "NSD"]
    header = ["method", "trainings", "parameters", *titles, "gap recovered", "training, CPU min"]
    rows = []
    for run, cost in comparison["runs"].items():
        cells = []
        for metric, name, digits in columns:
            entry = comparison["results"][metric][name][run]
            spread = (entry.get("trainings") or {}).get("sd") if several else entry["sem"]
            cells.append(f"{entry['mean']:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}"))
        share = comparison["results"]["dice"][mean][run].get("gap_recovered")
        minutes = "–" if cost["cpu_seconds"] is None else f"{cost['cpu_seconds'] / 60:.0f}"
        about = [run, str(cost["trainings"]), f"{cost['parameters']:,}"]
        rows.append([*about, *cells, "–" if share is None else f"{100 * share:.0f} %", minutes])
    if not per_class:
        header, rows = header[:-1], [row[:-1] for row in rows]
    spread_text = "standard deviation over trainings" if several else "standard error over cases, one training each"
    about_gap = f"Gap recovered: share of the way from {comparison['baseline']} to the teacher, mean Dice."
    note = f"Mean ± {spread_text}. {about_gap} Processor minutes, where recorded; on a GPU, of its process."
    return Table("", header, rows, note)


def best_rows(title: str, table: Table, selection: dict[str, Any], methods: dict[str, Any]) -> list[list[str]]:
    """The plain student, and of the distilled ones trained most often the best on selection; nothing if none is."""
    trainings = {run: about["trainings"] for run, about in selection["runs"].items()}
    dice = selection["results"]["dice"][overall(selection)]
    plain = {dice[run]["mean"] for run in trainings if "role" in methods.get(run, {})}
    # a run whose best epoch came before its distillation began has a plain student's weights
    distilled = [
        run for run in trainings if "role" not in methods.get(run, {"role": ""}) and dice[run]["mean"] not in plain
    ]
    best = max(distilled, key=lambda run: (trainings[run], dice[run]["mean"]), default=None)
    return [[title, *row] for row in table.rows if best and row[0] in (selection["baseline"], best)]


def methods_table(suite: dict[str, Any]) -> Table:
    """What each method of the suite changes."""
    rows = []
    for name, method in suite["methods"].items():
        about = {k: v for k, v in method.items() if k not in ("role", "config", "students", "seeds")}
        entries = ", ".join(f"{k} {json.dumps(v)}" for k, v in about.items())
        config = f"configs/methods/{method['config']}.json" if "config" in method else "–"
        rows.append([name, method.get("role", "student_dcd"), config, entries or "–"])
    return Table("", ["method", "bundle", "config", "entries"], rows)


def section(student: str, options: dict[str, Any], test: dict[str, Any], selection: dict[str, Any], seeds: int) -> str:
    """Tables of one student."""
    counts = {run: cost["trainings"] for run, cost in test["runs"].items() if run != test["teacher"]}
    finished = ", ".join(f"{run} {count}" for run, count in counts.items())
    state = f"Of {seeds} trainings per method in the suite, finished are: {finished}"
    if min(counts.values()) < 2:
        state += ". With a single training of a method no difference between methods can be claimed"
    differences = all_tables(test)["differences"][0]
    if len(test["classes"]) > _MANY:
        differences.rows = [row for row in differences.rows if row[1] == "mean of classes"]
    width = f" ({', '.join(f'{k} {v}' for k, v in options.items())})" if options else ""
    dice = selection["results"]["dice"][overall(selection)]
    scores = [f"{run} {dice[run]['mean']:.4f}" for run in selection["runs"]]
    chosen = "Mean Dice of the selection part, which chose the epochs and is no result: " + ", ".join(scores) + "."
    about = [f"### Student `{student}`{width}", f"{len(test['cases'])} test cases. {state}."]
    return "\n\n".join([*about, to_markdown(main_table(test)), to_markdown(differences), chosen])


def suite_text(suite: dict[str, Any], found: dict[str, dict[str, Any]], name: str, findings: str) -> str:
    """Everything about one suite."""
    sections = [
        section(student, options, found[f"{student}_test"], found[f"{student}_selection"], len(suite["seeds"]))
        for student, options in suite["students"].items()
        if f"{student}_test" in found
    ]
    shared = [f"{key} {value}" for key, value in suite["options"].items()]
    for role, entries in suite.get("role_options", {}).items():
        shared += [f"{key} `{json.dumps(value)}` ({role})" for key, value in entries.items()]
    methods = [f"### Methods of {name}.json", f"All runs: {', '.join(shared)}.", to_markdown(methods_table(suite))]
    return "\n\n".join([f"## Suite {name}", *sections, *([findings] if findings else []), *methods])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, metavar="OUTPUT", help="folder of dcd benchmark")
    parser.add_argument("--suite", type=Path, default=ROOT / "benchmarks" / "hippocampus.json", help="suite of OUTPUT")
    args = parser.parse_args(argv)
    results = ROOT / "benchmarks" / "results"
    if args.output:
        require_suite(args.suite, args.output)
        print(f"{copy_runs(args.output, results / args.suite.stem)} finished runs copied")
    texts: list[str] = []
    commands: list[str] = []
    rows: list[list[str]] = []
    table = Table("", [], [])
    for path in sorted(p for p in results.parent.glob("*.json") if (results / p.stem).is_dir()):
        suite, found = json.loads(path.read_text("utf-8")), comparisons(path, results / path.stem)
        commands += [f"dcd benchmark benchmarks/{path.name} --output runs/{path.stem} --jobs 2"]
        commands += [f"python -m scripts.write_benchmark runs/{path.stem} --suite benchmarks/{path.name}"]
        about = path.with_suffix(".md")
        texts.append(suite_text(suite, found, path.stem, about.read_text("utf-8").strip() if about.exists() else ""))
        for student in (student for student in suite["students"] if f"{student}_test" in found):
            table = main_table(found[f"{student}_test"], per_class=False)
            task = Path(suite["bundles"]).name.partition("_segmentation")[0]
            if task not in (row[0] for row in rows):
                rows += [[task, *row] for row in table.rows if row[0] == found[f"{student}_test"]["teacher"]]
            rows += best_rows(f"{path.stem}, {student}", table, found[f"{student}_selection"], suite["methods"])
    page = ROOT / "docs" / "results" / "benchmark.md"
    write_text("\n\n".join([_INTRO.strip(), *texts, _COMMANDS.format(commands="\n".join(commands))]), page)
    insert(to_markdown(Table("", ["suite, student", *table.header], rows, _NOTE)), ROOT / "README.md", "benchmark")
    print(f"{page.relative_to(ROOT)} and README.md written")


if __name__ == "__main__":
    show_plainly()
    main()
