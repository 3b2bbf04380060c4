"""Export the network of a trained bundle: TorchScript, ONNX. Verify with dcd verify."""

import argparse
from pathlib import Path

from dcd_ext.bundles.export import FORMATS, export

EXAMPLE = "dcd export bundles/hippocampus_segmentation_student --formats torchscript onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder with models/model.pt")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["torchscript"], help="default: torchscript")


def run(options: argparse.Namespace) -> int:
    for path, difference in export(options.bundle, options.formats):
        print(f"{path}  {path.stat().st_size:,} bytes, largest difference to the network {difference:.1e}")
    return 0
