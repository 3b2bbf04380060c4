"""Propose distillation weights calibrated to equal gradient norms: kd_weight · |grad KD| / |grad seg| = a target ratio.

Gradients of both losses are measured on augmented training batches with the student's weights from the middle of a
run.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dcd_ext.bundles.tools import config_files, method_files, open_bundle, read_options
from dcd_ext.commands.common import add_config_entries, positive, positive_number
from dcd_ext.distill.calibration import SCOPES, calibrate
from dcd_ext.errors import UserError
from dcd_ext.io import write_json
from dcd_ext.tables import Table, to_text

EXAMPLE = "dcd calibrate bundles/brats24_segmentation_student_dcd --dataset_dir prepared/brats24 --methods all"
_RECORDED = ("bundle", "dataset_dir", "checkpoint", "batches", "target_ratio", "fit_steps", "scope")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_entries(parser)
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a student_dcd bundle")
    parser.add_argument("--config_file", default="train.json", help="file or ['file','file'] (default train.json)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="of configs/methods, dcd, or all: one row each")
    parser.add_argument("--dataset_dir", required=True, help="prepared data")
    parser.add_argument("--checkpoint", help="checkpoint_last.pt or model.pt of a student (default: initial weights)")
    parser.add_argument("--batches", type=positive, default=8, help="number of training batches (default 8)")
    parser.add_argument("--target_ratio", type=positive_number, default=0.2, help="of gradient norms (default 0.2)")
    parser.add_argument("--fit_steps", type=int, default=30, help="steps to train untrained projections (default 30)")
    parser.add_argument("--scope", choices=SCOPES, default="encoder", help="parameters considered (default encoder)")
    parser.add_argument("--output", type=Path, default=Path("calibration.json"), help="default calibration.json")


def run(options: argparse.Namespace) -> None:
    """Measure every method, print the table, write the file that ``dcd methods --calibration`` reads."""
    override = {**read_options(options.config_entries), "dataset_dir": os.path.abspath(options.dataset_dir)}
    numbers = (options.checkpoint, options.batches, options.target_ratio, options.fit_steps)
    results: dict[str, dict[str, Any]] = {}
    bar = tqdm(_methods(options).items(), unit="method", disable=None)
    for name, files in bar:
        bar.set_description(name)
        # a few batches do not repay filling the cache
        parser = open_bundle(options.bundle, files, **{"cache_rate": 0.0, "num_workers": 0, **override})
        results[name] = {"config_file": files, **calibrate(parser, *numbers)}
        if options.scope not in results[name]:
            where = f"network_def of {files[0]}"
            raise UserError("student has no encoder", where, "a module 'encoder'", "none", "pass --scope all")
    chosen = {k: getattr(options, k) for k in _RECORDED}
    content = {"format": "dcd-calibration-1", **chosen, "options": options.config_entries, "methods": results}
    write_json(content, options.output)
    print(to_text(_table(results, options)))
    weight = results[name][options.scope]["proposed_weight"]
    print(f"{options.output}; train {name} with --kd_weight {weight:.3g}")


def _methods(options: argparse.Namespace) -> dict[str, list[str]]:
    """Config files per method."""
    files = config_files(options.config_file, options.bundle)
    if options.methods:
        return method_files(options.bundle, options.methods, files)
    last = Path(files[-1])
    return {last.stem if last.parent.name == "methods" else "dcd": files}


def _table(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> Table:
    header = ["method", "|grad seg|", "|grad KD|", "ratio at weight 1", "from", "to", "kd_weight now", "its ratio"]
    rows = []
    for name, result in results.items():
        s = result[options.scope]
        keys = ("seg", "kd", "ratio", "ratio_min", "ratio_max")
        numbers = [*(s[key] for key in keys), result["kd_weight"], s["weighted_ratio"], s["proposed_weight"]]
        rows.append([name, *(f"{x:.3g}" for x in numbers), result["projections"]])
    where = "the encoder's" if options.scope == "encoder" else "all"
    return Table(
        f"Gradient norms over {where} parameters of the student, medians of {options.batches} batches",
        [*header, f"kd_weight for {options.target_ratio:g}", "projections"],
        rows,
        f"Weights: {options.checkpoint or 'initial; pass --checkpoint of a half-trained student for better numbers'}.",
    )
