#!/usr/bin/env python3
"""Find the cases of a published data set and write datalist.json with seeded folds. Images are never copied.

isles22 also resamples DWI, ADC and mask onto the FLAIR grid; started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dcd_ext.data.datalist import build_datalist, refuse_case_folders, write_datalist
from dcd_ext.data.download import download_msd
from dcd_ext.data.isles import GRID, resample_cases
from dcd_ext.data.layouts import Case, find_brats, find_isles, find_msd, read_msd_index
from dcd_ext.data.summary import describe_datalist
from dcd_ext.data.tasks import BRATS24, ISLES22, Task
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder


def _parser() -> argparse.ArgumentParser:
    """The command line: one sub-command per family of layouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--source", type=Path, help="the unpacked data set, as published")
    common.add_argument("--output", type=Path, required=True, help="folder for datalist.json")
    common.add_argument("--folds", type=int, default=5, help="number of folds (default 5)")
    common.add_argument("--seed", type=int, default=12345, help="seed of the folds (default 12345)")
    tasks.add_parser("brats24", parents=[common], help="BraTS 2024 GLI (also the 2023 layout)")
    isles = tasks.add_parser("isles22", parents=[common], help="ISLES 2022, onto the FLAIR grid")
    isles.add_argument("--workers", type=int, help="processes (default: one per core)")
    msd = tasks.add_parser("msd", parents=[common], help="a Medical Segmentation Decathlon task")
    msd.add_argument("--task-name", help="name of the task in datalist.json (default: from dataset.json)")
    msd.add_argument("--download", metavar="TASK", help="fetch a task such as Task04_Hippocampus into --source first")
    return parser


def prepare(options: argparse.Namespace) -> str:
    """Prepare one data set.

    Args:
        options: the parsed command line.

    Returns:
        The summary to print.

    Raises:
        UserError: when the source is not in the expected layout or the output cannot be written.
    """
    source, output = _source(options), make_folder(options.output)
    task, cases = _find(options, source)
    refuse_case_folders(cases, output)
    notes = {}
    if options.task == "isles22":
        cases = resample_cases(cases, output, options.workers)
        notes["grid"] = GRID
    content = build_datalist(cases, task, output, options.folds, options.seed, **notes)
    summary = describe_datalist(content, output)
    path = write_datalist(content, output)
    return f"{summary}\n\n{path} written. Next: dcd check {path}"


def _find(options: argparse.Namespace, source: Path) -> tuple[Task, list[Case]]:
    """The cases of the source and what they should contain."""
    if options.task == "brats24":
        return BRATS24, find_brats(source)
    if options.task == "isles22":
        return ISLES22, find_isles(source)
    index = read_msd_index(source)
    name = options.task_name or str(index["name"]).lower()
    return Task.from_json(name, index["modality"], index["labels"]), find_msd(source)


def _source(options: argparse.Namespace) -> Path:
    """The folder with the data, downloaded first if asked for."""
    if getattr(options, "download", None):
        return download_msd(options.download, options.source or options.output)
    if options.source is None:
        raise UserError("no data set named", "--source", "the unpacked data set", "nothing", "add --source DIR")
    return options.source


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        print(prepare(_parser().parse_args(arguments)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; start the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
