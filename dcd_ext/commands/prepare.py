"""Find the cases of a published data set and write datalist.json with seeded folds.

Images are never copied. isles22 also resamples DWI, ADC and mask onto the FLAIR grid; when started again, it continues
where it stopped.
"""

import argparse
from pathlib import Path

from dcd_ext.commands.common import add_jobs
from dcd_ext.data.cases import DATALIST_FILE, Case
from dcd_ext.data.datalist import build_datalist, hold_out_test, refuse_case_folders, thin_training
from dcd_ext.data.dataset import read_nnunet
from dcd_ext.data.download import download_msd
from dcd_ext.data.isles import GRID, resample_cases
from dcd_ext.data.layouts import find_brats, find_isles, find_msd, read_msd_index
from dcd_ext.data.summary import describe_datalist
from dcd_ext.data.tasks import BRATS24, ISLES22, Task
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_json

EXAMPLE = "dcd prepare hippocampus --source Task04_Hippocampus --output prepared/hippocampus"
_DECATHLON = ("hippocampus", "msd")
_TASKS = """tasks:
  brats24      BraTS 2024 GLI (also the 2023 layout)
  isles22      ISLES 2022, onto the FLAIR grid
  hippocampus  Task04_Hippocampus of the Medical Segmentation Decathlon
  msd          any data set in the Decathlon's layout
  nnunet       any data set in nnU-Net's raw layout"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{_TASKS}\n\n{parser.epilog}"
    parser.add_argument("task", choices=("brats24", "isles22", *_DECATHLON, "nnunet"), metavar="TASK", help="see below")
    parser.add_argument("--source", type=Path, help="the unpacked data set, as published")
    parser.add_argument("--output", type=Path, required=True, help="folder for datalist.json")
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default 5)")
    parser.add_argument("--seed", type=int, default=12345, help="seed of the folds (default 12345)")
    parser.add_argument("--test_fold", type=int, metavar="K", help="fold whose cases become the test part")
    parser.add_argument("--training_share", type=float, metavar="X", help="train on a seeded share of the cases only")
    fold = "fold that --training_share leaves whole (default 1)"
    parser.add_argument("--selection_fold", type=int, default=1, metavar="K", help=fold)
    parser.add_argument("--task_name", help="msd: the task's name in datalist.json (default: from dataset.json)")
    download = "msd: fetch a task such as Task05_Prostate into --source first"
    parser.add_argument("--download", metavar="NAME", help=download)
    add_jobs(parser)


def run(options: argparse.Namespace) -> None:
    source, output = _source(options), make_folder(options.output)
    task, cases = _find(options, source)
    refuse_case_folders(cases, output)
    notes = {}
    if options.task == "isles22":
        cases = resample_cases(cases, output, options.jobs)
        notes["grid"] = GRID
    content = build_datalist(cases, task, output, options.folds, options.seed, **notes)
    if options.test_fold is not None:
        content = hold_out_test(content, options.test_fold)
    if options.training_share is not None:
        content = thin_training(content, options.selection_fold, options.training_share, options.seed)
    path = output / DATALIST_FILE
    write_json(content, path)
    print(f"{describe_datalist(content, output)}\n\n{path} written. Next: dcd check {path}")


def _find(options: argparse.Namespace, source: Path) -> tuple[Task, list[Case]]:
    """The cases of the source and what they should contain."""
    if options.task == "brats24":
        return BRATS24, find_brats(source)
    if options.task == "isles22":
        return ISLES22, find_isles(source)
    if options.task == "nnunet":
        data = read_nnunet(source)
        return data.task, data.cases
    index = read_msd_index(source)
    name = options.task_name or (options.task if options.task != "msd" else str(index["name"]).lower())
    return Task.from_json(name, index["modality"], index["labels"]), find_msd(source)


def _source(options: argparse.Namespace) -> Path:
    """The folder with the data, downloaded first if asked for."""
    for key in ("task_name", "download"):
        if getattr(options, key) and options.task not in _DECATHLON:
            known = " or ".join(_DECATHLON)
            raise UserError("option of Decathlon tasks", f"--{key}", known, options.task, "leave it out")
    if options.download:
        return download_msd(options.download, options.source or options.output)
    if options.source is None:
        raise UserError("no data set given", "--source", "the unpacked data set", "nothing", "add --source DIR")
    return options.source
