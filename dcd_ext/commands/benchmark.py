#!/usr/bin/env python3
"""Train and score every (student, method, seed) of a suite by the bundles' own commands; finished runs are skipped."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def runs_of(suite: dict[str, Any], output: Path) -> list[dict[str, Any]]:
    """The runs in the order of the suite: seeds outermost, so that early results compare methods."""
    teacher_ckpt = output / "teacher" / f"seed{suite['teacher_seed']}" / "models" / "model.pt"
    runs = []
    for seed in suite["seeds"]:
        for student, student_options in suite["students"].items():
            for method, entry in suite["methods"].items():
                entry = dict(entry)
                role, overlay = entry.pop("role", "student_dcd"), entry.pop("config", None)
                if seed not in entry.pop("seeds", suite["seeds"]) or student not in entry.pop("students", [student]):
                    continue
                options = {**suite["options"], **student_options, **entry, "seed": seed}
                bundle = suite["bundles"].format(role=role)
                files = [f"{bundle}/configs/train.json"] + (
                    [f"{bundle}/configs/methods/{overlay}.json"] if overlay else []
                )
                needs = teacher_ckpt if role == "student_dcd" else None
                if needs:
                    options["teacher_ckpt"] = needs
                folder = output / student / method / f"seed{seed}"
                runs.append({"bundle": bundle, "files": files, "options": options, "needs": needs, "folder": folder})
    return runs


def command(run: dict[str, Any], what: str, output_dir: Path, files: list[str], **options: Any) -> None:
    """One command of the bundle, logged."""
    folder = run["folder"]
    output_dir.mkdir(parents=True, exist_ok=True)
    options = {**run["options"], "output_dir": output_dir, "ckpt_dir": folder / "models", **options}
    args = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        what,
        "--bundle_root",
        run["bundle"],
        "--config_file",
        str(files),
    ]
    args += [part for k, v in options.items() for part in (f"--{k}", str(v))]
    with open(output_dir / f"{what}.log", "a", encoding="utf-8") as log:
        subprocess.run(args, stdout=log, stderr=subprocess.STDOUT, check=True, cwd=ROOT)


def do(run: dict[str, Any], suite: dict[str, Any]) -> None:
    """Train (or go on training) and score one run."""
    folder, fold = run["folder"], {"dataset_dir": suite["dataset_dir"], "fold": suite["fold"]}
    done = folder / "models" / "trained"
    if not done.exists():
        resume = (folder / "checkpoint_last.pt").exists()
        command(run, "training", folder, run["files"], resume=resume, **fold)
        done.touch()
    scoring = [*run["files"], f"{run['bundle']}/configs/evaluate.json"]
    for section, part in (("validation", "selection"), ("test", "test")):
        if part in suite["score"] and not (folder / part / "metrics.json").exists():
            command(
                run, "evaluating", folder / part, scoring, section=section, save_predictions=False, amp=False, **fold
            )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    suite, output = json.loads(args.suite.read_text("utf-8")), args.output.resolve()
    os.environ["OMP_NUM_THREADS"] = str(suite.get("threads", 1))
    os.environ["PYTHONPATH"] = str(ROOT)
    pending, lock = runs_of(suite, output), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                ready = [r for r in pending if r["needs"] is None or (r["needs"].parent / "trained").exists()]
                if not pending:
                    return
                run = ready[0] if ready else None
                if run:
                    pending.remove(run)
                    print(time.strftime("%H:%M:%S"), f"{len(pending)} left, start", run["folder"], flush=True)
            if run is None:
                time.sleep(5)
                continue
            try:
                do(run, suite)
            except subprocess.CalledProcessError as error:
                print("failed:", run["folder"], error.returncode, flush=True)

    threads = [threading.Thread(target=work) for _ in range(args.jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
