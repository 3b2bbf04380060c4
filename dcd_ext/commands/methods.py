#!/usr/bin/env python3
"""Train and evaluate one student per distillation method on equal terms, each by the bundle's own commands.

Any option of the bundle's training may be added, such as --max_epochs N or --fold K; it holds for all methods.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dcd_ext.bundles.method_runs import method_files, proposed_weights, run_method, summary_table
from dcd_ext.bundles.tools import read_options
from dcd_ext.errors import UserError
from dcd_ext.io import write_json, write_text
from dcd_ext.tables import to_markdown, to_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle_root", required=True, help="folder of a student_dcd bundle")
    parser.add_argument("--methods", nargs="+", default=["all"], metavar="NAME", help="default: all that it ships")
    parser.add_argument("--dataset_dir", required=True, help="prepared data")
    parser.add_argument("--calibration", help="file of dcd calibrate: use the weights it proposes")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"), help="default runs/methods")
    parser.add_argument("--no-evaluation", action="store_true", help="train only")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    options, rest = _parser().parse_known_args(arguments)
    records: dict[str, Any] = {}
    try:
        common = {**read_options(rest), "dataset_dir": options.dataset_dir}
        files = method_files(options.bundle_root, options.methods)
        weights = proposed_weights(options.calibration, list(files)) if options.calibration else {}
        for name, configs in files.items():
            print(f"{name}: {options.output / name}", flush=True)
            settings = {**common, **({"kd_weight": weights[name]} if weights else {})}
            evaluate = not options.no_evaluation
            records[name] = run_method(name, options.bundle_root, configs, options.output, settings, evaluate)
            write_json(
                {"format": "dcd-methods-1", "options": rest, "methods": records}, options.output / "methods.json"
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = summary_table(records)
    write_text(to_markdown(table) + "\n", options.output / "methods.md")
    print(to_text(table))
    if not options.no_evaluation:
        print(f"compare case by case: dcd compare {' '.join(str(options.output / n) for n in records)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
