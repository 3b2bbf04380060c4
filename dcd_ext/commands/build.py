"""Build the bundles (teacher, student, DCD student) of a task file of your own, or of a shipped task.

docs/add_a_task.md explains the file. Weights already in the folder are kept.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from dcd_ext.bundles.build import build_bundle
from dcd_ext.bundles.sources import find_task, roles
from dcd_ext.io import write_text

EXAMPLE = "dcd build prostate.json --output bundles"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK.json", help="a task file, or the name of a shipped task")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the bundles")


def run(options: argparse.Namespace) -> None:
    """Nothing is written unless all of them can be built."""
    task = find_task(options.task)
    bundles = {role: build_bundle(task, role) for role in tqdm(roles(), desc="build", unit="bundle", disable=None)}
    for role, files in bundles.items():
        for path, text in files.items():
            write_text(text, options.output / path)
        print(options.output / f"{task.stem}_segmentation_{role}")
