#!/usr/bin/env python3
"""Measure a task's network at several widths: parameters, operations, CPU latency per patch and per volume, Dice.

Networks, memory format and sliding window come from the task's bundle. Writes family_<task>.json, .md and .svg.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from dcd_ext.bundles.widths import held_out_case, mean_dice, measure_family, smallest_patch
from dcd_ext.errors import UserError, user_error
from dcd_ext.io import write_atomically, write_json, write_text
from dcd_ext.report.widths import family_alt, family_page, family_plot, family_table
from dcd_ext.tables import to_text

ROOT = Path(__file__).resolve().parents[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="brats24", help="brats24 (default), isles22, hippocampus or your own")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 4, 8], metavar="R", help="default 1 2 4 8")
    parser.add_argument("--patch", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels (default: the bundle's)")
    parser.add_argument("--volume", type=int, nargs=3, metavar=("X", "Y", "Z"), help="default: 1.5 patches a side")
    parser.add_argument("--dataset_dir", help="prepared data: its first held-out case is the volume; Dice of weights")
    parser.add_argument("--fold", type=int, default=0, help="held-out fold of --dataset_dir (default 0)")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes per patch (default 10)")
    parser.add_argument("--volume-repeats", type=int, default=3, help="timed passes per volume (default 3; 0: none)")
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    parser.add_argument("--small", action="store_true", help="smallest patch, few repeats: to try the command")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="R=PATH",
        help="Dice at factor R: a metrics.json, or weights (*.pt) to be evaluated on --dataset_dir; repeatable",
    )
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the results (default runs)")
    return parser


def dice_of_runs(options: argparse.Namespace, bundle: str, result: dict[str, Any]) -> None:
    """Add ``mean_dice`` to the members that ``--run`` names.

    Raises:
        UserError: for a run of an unknown factor, a missing file, or one of another network.
    """
    members = {m["reduction_factor"]: m for m in result["members"]}
    for text in options.run:
        factor, _, path = text.partition("=")
        if not factor.isdigit() or int(factor) not in members or not Path(path).is_file():
            expected = f"R=FILE with R in {sorted(members)}"
            raise UserError("unusable run", "--run", expected, repr(text), "name an existing metrics.json or model.pt")
        member = members[int(factor)]
        if path.endswith(".json"):
            member["mean_dice"] = _recorded_dice(path, member["parameters"])
        elif options.dataset_dir is None:
            raise UserError("weights cannot be scored", path, "--dataset_dir", "none", "add it, or give a metrics.json")
        else:
            member["mean_dice"] = mean_dice(bundle, int(factor), path, options.dataset_dir, options.fold)


def _recorded_dice(path: str, parameters: int) -> float | None:
    metrics = json.loads(Path(path).read_text("utf-8"))
    if metrics.get("parameters") != parameters:
        found = metrics.get("parameters")
        raise UserError("metrics of another network", path, f"{parameters} parameters", found, "correct --run")
    dice: float | None = metrics["summary"]["mean"]["dice"]["mean"]
    return dice


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one call of the command."""
    bundle = str(ROOT / "bundles" / f"{options.task}_segmentation_student")
    if not Path(bundle).is_dir():
        known = ", ".join(sorted(p.name[:-21] for p in (ROOT / "bundles").glob("*_segmentation_student")))
        raise UserError("unknown task", "--task", known, repr(options.task), "name one of them")
    if options.threads:
        torch.set_num_threads(options.threads)
    patch, repeats, volume_repeats = options.patch, options.repeats, options.volume_repeats
    if options.small:
        patch, repeats, volume_repeats = patch or smallest_patch(bundle), min(repeats, 2), min(volume_repeats, 1)
    volume = held_out_case(bundle, options.dataset_dir, options.fold) if options.dataset_dir else options.volume
    result = measure_family(bundle, options.factors, patch, volume, repeats, volume_repeats)
    dice_of_runs(options, bundle, result)
    return {"task": options.task, **result}


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        result = measure(options)
    except Exception as error:
        if (cause := user_error(error)) is None:
            raise
        print(f"error: {cause}", file=sys.stderr)
        return 1
    stem = options.output / f"family_{options.task}"
    metadata = {"Title": family_alt(result), "Date": None}
    figure = family_plot(result)
    write_json(result, stem.with_suffix(".json"))
    write_atomically(stem.with_suffix(".svg"), lambda name: figure.savefig(name, format="svg", metadata=metadata))
    command = shlex.join(["python", "scripts/bench_family.py", *arguments])
    write_text(family_page(result, command, f"family_{options.task}.svg"), stem.with_suffix(".md"))
    print(to_text(family_table(result)))
    print(f"{stem}.json, .md and .svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
