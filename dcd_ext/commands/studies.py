"""Make a studies folder for MONAI Label from a prepared data set: links, or 4-D files for multi-channel cases."""

import argparse
from pathlib import Path

from dcd_ext.commands.common import add_datalist
from dcd_ext.data.studies import write_studies

EXAMPLE = "dcd studies prepared/brats24 --output studies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_datalist(parser)
    parser.add_argument("--output", type=Path, required=True, help="the studies folder")


def run(options: argparse.Namespace) -> None:
    images, labels = write_studies(options.datalist, options.output)
    print(f"{images} images and {labels} labels in {options.output}")
