"""Write measured results where they are shown: docs/results, the README's table and the bundles' metadata.

Each RUN is the output folder of a bundle that was trained and evaluated: ``metrics.json`` and ``training.json``. Nobody
types a number.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_json, write_text
from dcd_ext.tables import Table, to_markdown

ROOT = Path(__file__).resolve().parents[1]
ROLES = ("teacher", "student", "student_dcd")


def read_run(folder: Path) -> dict[str, Any]:
    """Metrics and training record of one run, with its role taken from the folder's name.

    Raises:
        UserError: if a file is missing or the folder is not named after a role.
    """
    if folder.name not in ROLES:
        raise UserError("unknown run", folder, f"a folder named {', '.join(ROLES)}", folder.name, "rename the folder")
    run: dict[str, Any] = {"role": folder.name}
    for name in ("metrics", "training"):
        path = folder / f"{name}.json"
        if not path.is_file():
            raise UserError(f"no {name}.json", folder, "a trained and evaluated run", "none", "train, then evaluate")
        run[name] = json.loads(path.read_text("utf-8"))
    return run


def pm(value: dict[str, Any], digits: int) -> str:
    """Mean ± standard error."""
    if value["mean"] is None:
        return "–"
    sem = "" if value["sem"] is None else f" ± {value['sem']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{sem}"


def result_table(runs: Sequence[dict[str, Any]]) -> str:
    """Scores in Markdown, one row per run."""
    classes = runs[0]["metrics"]["class_names"]
    header = ["model", "parameters", *(f"Dice {c}" for c in classes), "mean Dice", "HD95 mm", "NSD", "training"]
    rows = []
    for run in runs:
        summary, minutes = run["metrics"]["summary"], f"{run['training']['seconds'] / 60:.0f} min"
        dice = [pm(summary[c]["dice"], 4) for c in (*classes, "mean")]
        distances = [pm(summary["mean"]["hd95_mm"], 2), pm(summary["mean"]["nsd"], 4)]
        rows.append([run["role"], f"{run['metrics']['parameters']:,}", *dice, *distances, minutes])
    return to_markdown(Table("", header, rows))


def page(task: str, runs: Sequence[dict[str, Any]], commands: str, note: str) -> str:
    """The page below ``docs/results``."""
    metrics, training = runs[0]["metrics"], runs[0]["training"]
    environment = "\n".join(f"- {k}: {v}" for k, v in training["environment"].items())
    counts = Table("", ["model", "class", "cases scored", "empty", "missed", "false alarm"], [])
    for run in runs:
        for name in metrics["class_names"]:
            entry = run["metrics"]["summary"][name]
            numbers = [entry["dice"]["n"], entry["empty"], entry["missed"], entry["false_alarm"]]
            counts.rows.append([run["role"], name, *map(str, numbers)])
    columns = ["model", "epochs", "seconds per epoch (median)", "best validation Dice", "seconds per case"]
    epochs = Table("", columns, [])
    for run in runs:
        seconds = sorted(e["seconds"] for e in run["training"]["epochs"])
        best = max((e["val_mean_dice"] for e in run["training"]["epochs"] if "val_mean_dice" in e), default=None)
        per_case = f"{run['metrics']['seconds_per_case']:.2f}"
        row = [run["role"], str(len(seconds)), f"{seconds[len(seconds) // 2]:.1f}", f"{best:.4f}" if best else "–"]
        epochs.rows.append([*row, per_case])
    return f"""# Results: {task}, fold {metrics["fold"]}

{len(metrics["cases"])} held-out cases, scored against their label files; mean ± standard error over cases. NSD at
{metrics["nsd_tolerance_mm"]:g} mm. Empty masks: {metrics["empty_rule"]}.

{result_table(runs)}

{note}

## Counts

{to_markdown(counts)}

## Training

{to_markdown(epochs)}

## Commands

```
{commands.strip()}
```

## Environment

{environment}

This page is written by `scripts/write_results.py` from `metrics.json` and `training.json` of the runs.
"""


def eval_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a bundle's metadata and README say of its weights: Dice per class, mean and standard error over cases."""
    dice = {name: entry["dice"] for name, entry in metrics["summary"].items()}
    return {
        "fold": metrics["fold"],
        "cases": len(metrics["cases"]),
        "dice": {name: round(value["mean"], 4) for name, value in dice.items()},
        "dice_sem": {name: round(value["sem"], 4) for name, value in dice.items()},
    }


def update_readme(task: str, table: str) -> None:
    """Replace the README's table between the task's markers."""
    path = ROOT / "README.md"
    text = path.read_text("utf-8")
    pattern = rf"(<!-- results {task} -->\n).*?(\n<!-- end results {task} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise UserError("no place for the table", path, f"<!-- results {task} -->", "none", "add both markers")
    text = re.sub(pattern, lambda m: m[1] + table + m[2], text, flags=re.DOTALL)
    write_text(text, path)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--task", required=True)
    parser.add_argument("--commands", type=Path, help="the script that ran; default: scripts/run_<task>.sh")
    parser.add_argument("--note", default="", help="a remark for the page")
    args = parser.parse_args(argv)
    runs = sorted((read_run(folder) for folder in args.runs), key=lambda run: ROLES.index(run["role"]))
    commands = args.commands or ROOT / "scripts" / f"run_{args.task}.sh"
    target = ROOT / "docs" / "results" / f"{args.task}.md"
    write_text(page(args.task, runs, commands.read_text("utf-8"), args.note), target)
    update_readme(args.task, result_table(runs))
    for run in runs:
        path = ROOT / "bundle_src" / "results" / f"{args.task}_segmentation_{run['role']}.json"
        write_json(eval_metrics(run["metrics"]), path)
    print(f"{target.relative_to(ROOT)}, README.md and bundle_src/results written; now run scripts/build_bundles.py")


if __name__ == "__main__":
    show_plainly()
    main()
