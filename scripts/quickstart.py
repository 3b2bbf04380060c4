"""Segment a real case with shipped weights; train, evaluate and run the three roles on synthetic data, in one table.

The ``brats24`` bundles run as they are, made small by their overlay ``configs/quickstart.json``. Every command is
printed, so that the same can be done with real data.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_text
from dcd_ext.parallel import cores
from dcd_ext.tables import Table, to_markdown, to_text
from scripts.example import ROOT, bundle_command, draw_example, example_command, shipped_bundle

ROLES = ("teacher", "student", "student_dcd")
# no thread waits for another by spinning: beside other programs that doubles the CPU time
_THREADS = {"OMP_NUM_THREADS": str(min(cores(), 4)), "OMP_WAIT_POLICY": "PASSIVE"}


class Runner:
    """Runs commands one after the other, each with a log file, and remembers how long they took."""

    def __init__(self, output: Path) -> None:
        self.logs = output / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.seconds: dict[str, float] = {}
        self.commands: list[str] = []

    def __call__(self, step: str, *arguments: str | Path) -> None:
        """Run ``python -m <arguments>``; if it fails, print the end of its log and stop."""
        command = [sys.executable, "-m", *map(str, arguments)]
        shown = " ".join(["python -m", *(_shown(a) for a in arguments)]).replace("python -m dcd_ext", "dcd")
        self.commands.append(shown)
        print(f"[{len(self.commands)}] {step}\n    {shown}", flush=True)
        log, start = self.logs / f"{step.replace(' ', '_')}.log", time.perf_counter()
        environment = {**_THREADS, **os.environ, "PYTHONPATH": str(ROOT)}
        with open(log, "w", encoding="utf-8") as file:
            result = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment)
        self.seconds[step] = time.perf_counter() - start
        print(f"    {self.seconds[step]:.0f} s", flush=True)
        if result.returncode:
            print("\n".join(log.read_text("utf-8", errors="replace").splitlines()[-15:]), file=sys.stderr)
            raise UserError(f"step '{step}' failed", log, "exit code 0", result.returncode, "read the log")


def _shown(argument: str | Path) -> str:
    """As a user would type it: relative to the project's root, a list of files in double quotes."""
    if isinstance(argument, Path) and argument.is_absolute() and argument.is_relative_to(ROOT):
        argument = argument.relative_to(ROOT)
    text = str(argument)
    return f'"{text}"' if "'" in text else shlex.quote(text)


def segment_example(run: Runner, output: Path) -> None:
    """The real case, if weights are shipped: its Dice and its picture."""
    bundle = shipped_bundle()
    if bundle is None:
        print("No shipped weights in bundles/hippocampus_*: the real example is left out")
        return
    run("segment a real case", *example_command(bundle.relative_to(ROOT), output))
    picture, dice = draw_example(output)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
    print(f"    Dice against its label: {scores}\n    outlines (dotted: label): {picture}\n")


def run_all(output: Path, cases: int) -> Runner:
    """All steps, from the real case over phantoms to inference."""
    run = Runner(output)
    segment_example(run, output / "example")
    data, prepared = output / "BraTS2024-BraTS-GLI", output / "prepared"

    def command(role: str, run_id: str, *configs: str) -> list[str | Path]:
        bundle, folder = Path("bundles") / f"brats24_segmentation_{role}", output / role
        where: list[str | Path] = ["--dataset_dir", prepared, "--output_dir", folder, "--ckpt_dir", folder / "models"]
        return bundle_command(bundle, run_id, *configs, "quickstart") + where

    run("make phantoms", "dcd_ext", "phantoms", "--output", data, "--cases", str(cases), "--test_cases", "1")
    run("prepare data", "dcd_ext", "prepare", "brats24", "--source", data, "--output", prepared)
    run("check data", "dcd_ext", "check", prepared)
    for role in ROLES:
        teacher = ("--teacher_ckpt", output / "teacher" / "models" / "model.pt") if role == "student_dcd" else ()
        run(f"train {role}", *command(role, "training", "train"), *teacher)
    for role in ROLES:
        run(f"evaluate {role}", *command(role, "evaluating", "train", "evaluate"))
    bundle = Path("bundles/brats24_segmentation_student_dcd")
    weights: list[str | Path] = ["--ckpt_path", output / "student_dcd" / "models" / "model.pt"]
    where: list[str | Path] = ["--dataset_dir", prepared, "--output_dir", output / "predictions"]
    run("infer one case", *bundle_command(bundle, "inference", "inference", "quickstart"), *where, *weights)
    return run


def table(metrics: dict[str, Any], seconds: dict[str, float]) -> Table:
    """One row per model."""
    classes = metrics["teacher"]["class_names"]
    header = ["model", "parameters", *(f"Dice {c}" for c in classes), "mean Dice", "training s", "s per case"]
    rows = []
    for role in ROLES:
        m = metrics[role]
        means = [m["summary"][c]["dice"]["mean"] for c in (*classes, "mean")]
        dice = ["–" if d is None else f"{d:.3f}" for d in means]
        times = [f"{seconds[f'train {role}']:.0f}", f"{m['seconds_per_case']:.2f}"]
        rows.append([role, f"{m['parameters']:,}", *dice, *times])
    note = (
        f"Dice on {len(metrics['teacher']['cases'])} phantoms, which also chose the epoch. This shows that every step "
        "works; minutes of training at toy widths cannot tell the methods apart: docs/results/benchmark.md."
    )
    return Table("Quickstart on synthetic data", header, rows, note)


def report(output: Path, run: Runner) -> None:
    """Print the table and write ``report.md``."""
    metrics = {role: json.loads((output / role / "metrics.json").read_text("utf-8")) for role in ROLES}
    result = table(metrics, run.seconds)
    print(f"\n{to_text(result)}")
    commands = "\n".join(run.commands)
    write_text(f"{to_markdown(result)}\n\n```\n{commands}\n```\n", output / "report.md")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "quickstart_output")
    parser.add_argument("--cases", type=int, default=16, help="labelled phantoms")
    args = parser.parse_args(argv)
    output, start = args.output.resolve(), time.perf_counter()
    # only what an earlier quickstart wrote
    for name in ("BraTS2024-BraTS-GLI", "prepared", "predictions", "example", "logs", *ROLES):
        shutil.rmtree(output / name, ignore_errors=True)
    report(output, run_all(output, args.cases))
    predictions = sorted((output / "predictions").rglob("*_seg.nii.gz"))
    print(f"Prediction of an unlabelled case: {', '.join(map(str, predictions))}")
    print(f"Table, commands and times: {output / 'report.md'}; logs, weights and metrics.json beside it")
    print(f"Next: docs/train.md. Total {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    show_plainly()
    main()
