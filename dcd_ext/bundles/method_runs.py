"""Train and evaluate one student per distillation method, by the bundle's own commands, on equal terms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.tables import Table

__all__ = ["known_methods", "method_files", "proposed_weights", "run_method", "summary_table"]


def known_methods(bundle_root: str) -> list[str]:
    """Names of the methods a ``student_dcd`` bundle ships."""
    return ["dcd", *sorted(p.stem for p in (Path(bundle_root) / "configs" / "methods").glob("*.json"))]


def method_files(bundle_root: str, names: Sequence[str], train: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Config files per method; ``["all"]`` stands for every one.

    Args:
        bundle_root: folder of the bundle.
        names: methods.
        train: the files that come before the method's; None: ``configs/train.json``.

    Raises:
        UserError: for an unknown method.
    """
    configs, known = Path(bundle_root) / "configs", known_methods(bundle_root)
    names = known if list(names) == ["all"] else names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError("unknown method", "--methods", ", ".join(known), unknown[0], "correct the spelling")
    files = list(train or [str(configs / "train.json")])
    return {n: files if n == "dcd" else [*files, str(configs / "methods" / f"{n}.json")] for n in names}


def proposed_weights(path: str, names: Sequence[str]) -> dict[str, float]:
    """``kd_weight`` per method from what ``dcd calibrate`` wrote.

    Raises:
        UserError: if the file is something else or lacks a method.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        return {n: float(content["methods"][n][content["scope"]]["proposed_weight"]) for n in names}
    except (OSError, ValueError, KeyError, TypeError) as e:
        found = f"{type(e).__name__}: {e}"
        step = "run dcd calibrate for these methods"
        raise UserError("no proposed weights", path, f"calibration of {', '.join(names)}", found, step) from e


def run_method(
    name: str, bundle_root: str, files: Sequence[str], output: Path, options: Mapping[str, Any], evaluate: bool
) -> dict[str, Any]:
    """Train (for FreeKD after tuning its prompts) and evaluate below ``output/name``.

    Args:
        name: the method.
        bundle_root: folder of the bundle.
        files: its config files.
        output: folder of all runs.
        options: config entries for all commands.
        evaluate: score the best weights on the held-out fold.

    Returns:
        Content of ``training.json``, with ``mean_dice`` if evaluated.

    Raises:
        UserError: if a command fails; its log is named.
    """
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    where = {"output_dir": folder, "ckpt_dir": folder / "models", **options}
    if name == "freekd" and "prompts" not in options:
        _bundle_command("tune_prompts", bundle_root, files, folder, where)
    _bundle_command("training", bundle_root, files, folder, where)
    record: dict[str, Any] = json.loads((folder / "training.json").read_text("utf-8"))
    if evaluate:
        scoring = [*files, str(Path(bundle_root) / "configs" / "evaluate.json")]
        _bundle_command("evaluating", bundle_root, scoring, folder, where)
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        record["mean_dice"] = metrics["summary"]["mean"]["dice"]["mean"]
    return record


def _bundle_command(
    run_id: str, bundle_root: str, files: Sequence[str], folder: Path, options: Mapping[str, Any]
) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--bundle_root", bundle_root]
    command += ["--config_file", str(list(files))]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    log = folder / f"{run_id}.log"
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        last = log.read_text("utf-8", errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise UserError(f"{run_id} failed", log, "exit code 0", f"{code}: {last[0]}", "read the log")


def summary_table(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per method of what :func:`run_method` returned."""
    rows = []
    for name, record in records.items():
        epochs = record["epochs"]
        last = epochs[-1]
        dice = [e["val_mean_dice"] for e in epochs if e.get("val_mean_dice") is not None]
        numbers = [last.get("kd_weight"), last.get("kd_loss"), last.get("seg_loss", last.get("loss"))]
        cells = ["–" if x is None else f"{x:.3g}" for x in numbers]
        scores = [max(dice, default=None), record.get("mean_dice")]
        cells += ["–" if x is None else f"{x:.4f}" for x in scores]
        rows.append([name, str(len(epochs)), f"{record['seconds'] / len(epochs):.1f}", *cells])
    header = [
        "method",
        "epochs",
        "s per epoch",
        "kd_weight",
        "KD loss",
        "seg. loss",
        "best validation Dice",
        "mean Dice",
    ]
    return Table("Distillation methods", header, rows, "Weight and losses of the last epoch, the KD loss unweighted.")
