"""Train and evaluate one student per distillation method under the same conditions, by the bundle's own commands.

When started again, it continues where it stopped.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcd_ext.bundles.runs import Run, run_all
from dcd_ext.bundles.tools import method_files, read_options
from dcd_ext.commands.common import add_config_entries, add_jobs, raise_failures
from dcd_ext.errors import UserError
from dcd_ext.io import write_json, write_text
from dcd_ext.readers import read_json, read_metrics, read_training
from dcd_ext.tables import Table, to_markdown, to_text

EXAMPLE = "dcd methods bundles/brats24_segmentation_student_dcd --dataset_dir prepared/brats24 --output runs/methods"
_HEADER = ["method", "epochs", "s per epoch", "kd_weight", "KD loss", "seg. loss", "best validation Dice", "mean Dice"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_entries(parser)
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a student_dcd bundle")
    parser.add_argument("--methods", nargs="+", default=["all"], metavar="NAME", help="default: all that it ships")
    parser.add_argument("--dataset_dir", required=True, help="prepared data")
    parser.add_argument("--calibration", help="file of dcd calibrate: use the weights it proposes")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"), help="default runs/methods")
    parser.add_argument("--no_evaluation", action="store_true", help="train only")
    add_jobs(parser, default=1)


def run(options: argparse.Namespace) -> None:
    """A method that fails does not keep the others from the summary."""
    files = method_files(options.bundle, options.methods)
    weights = proposed_weights(options.calibration, list(files)) if options.calibration else {}
    common = {**read_options(options.config_entries), "dataset_dir": Path(options.dataset_dir)}
    scores = {} if options.no_evaluation else {"validation": ""}
    runs = {}
    for name, configs in files.items():
        settings = {**common, **({"kd_weight": weights[name]} if weights else {})}
        runs[name] = Run(options.output / name, options.bundle, configs, settings, scores)
    errors = run_all(list(runs.values()), options.jobs)
    records = {name: _record(r.folder) for name, r in runs.items() if r.folder not in errors}
    if records:
        content = {"format": "dcd-methods-1", "options": options.config_entries, "methods": records}
        write_json(content, options.output / "methods.json")
        write_text(to_markdown(summary_table(records)) + "\n", options.output / "methods.md")
        print(to_text(summary_table(records)))
    raise_failures(errors, len(runs))
    if not options.no_evaluation:
        print(f"compare case by case: dcd compare {' '.join(str(r.folder) for r in runs.values())}")


def proposed_weights(path: str, names: Sequence[str]) -> dict[str, float]:
    """``kd_weight`` per method from what ``dcd calibrate`` wrote."""
    step = f"run dcd calibrate for {', '.join(names)}"
    content = read_json(path, "calibration", "calibration", step)
    try:
        return {name: content["methods"][name][content["scope"]]["proposed_weight"] for name in names}
    except KeyError as error:
        raise UserError("no proposed weight", path, f"an entry {error}", "none", step) from error


def _record(folder: Path) -> dict[str, Any]:
    """Content of ``training.json``, with ``mean_dice`` if evaluated."""
    record = read_training(folder / "training.json")
    if (folder / "metrics.json").exists():
        record["mean_dice"] = read_metrics(folder / "metrics.json")["summary"]["mean"]["dice"]["mean"]
    return record


def summary_table(records: Mapping[str, Mapping[str, Any]]) -> Table:
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
    return Table("Distillation methods", _HEADER, rows, "Weight and losses of the last epoch, the KD loss unweighted.")
