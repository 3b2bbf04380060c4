"""Write a task file for your own data, with a reason for each choice; edit it, then run dcd build.

The data set is a folder in the Decathlon's or nnU-Net's raw layout, or a prepared data list. Spacing, patch, strides,
features, blocks and batch size follow nnU-Net's published rules, or its plans.
"""

import argparse
import re
import tempfile
from pathlib import Path

from dcd_ext.bundles.build import build_bundle
from dcd_ext.bundles.new_task import new_task
from dcd_ext.bundles.sources import to_json
from dcd_ext.commands.common import positive_number
from dcd_ext.data.dataset import read_dataset
from dcd_ext.errors import UserError
from dcd_ext.io import write_text
from dcd_ext.nnunet.plans import read_plan
from dcd_ext.tables import Table, to_text

EXAMPLE = "dcd new-task Task05_Prostate --output prostate.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder with dataset.json, or a datalist.json")
    parser.add_argument("--output", type=Path, required=True, metavar="TASK.json", help="a new file, named as the task")
    parser.add_argument("--plans", type=Path, metavar="FILE", help="nnU-Net's for these data (default: planned here)")
    memory = "for the teacher (default 8)"
    parser.add_argument("--gpu_memory", type=positive_number, default=8.0, metavar="GIB", help=memory)


def run(options: argparse.Namespace) -> None:
    """What is written can be built."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.json", options.output.name):
        expected = "letters, digits, '_', '-' and .json"
        raise UserError("unusable name", "--output", expected, options.output.name, "choose another")
    if options.output.exists():
        raise UserError("the file exists", options.output, "a new file", "an edited one?", "choose another --output")
    planned = read_plan(options.plans) if options.plans else None
    task = new_task(read_dataset(options.dataset), options.output.stem, options.gpu_memory, planned)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, options.output.name)
        write_text(to_json(task), draft)
        build_bundle(draft, "teacher")
    write_text(to_json(task), options.output)
    sections = ("fragments", "evaluate", "train", "common")
    values = {key: value for section in sections for key, value in task[section].items()}
    rows = [[key, str(values[key]), reason] for key, reason in task["comments"].items() if key in values]
    print(to_text(Table("", ["entry", "value", "reason"], [row for row in rows if row[0] != "network_def"])))
    print(f"\n{options.output} written. Edit it, then: dcd build {options.output} --output bundles")
