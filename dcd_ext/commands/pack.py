"""Pack a bundle with trained weights into a release zip: the same input gives the same bytes."""

import argparse
from pathlib import Path

from dcd_ext.bundles.pack import pack
from dcd_ext.commands.common import positive
from dcd_ext.io import sha256

EXAMPLE = "dcd pack bundles/hippocampus_segmentation_student --checkpoint runs/student/models/model.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")
    parser.add_argument("--checkpoint", type=Path, help="trained weights (default: models/model.pt in the bundle)")
    parser.add_argument("--metrics", type=Path, help="metrics.json of the evaluation of exactly these weights")
    parser.add_argument("--reduction_factor", type=positive, help="width divisor of the weights, if not the bundle's")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder of the zip (default: dist)")
    parser.add_argument("--large_files_url", help="leave the weights out, to be downloaded below this address")


def run(options: argparse.Namespace) -> None:
    checkpoint = options.checkpoint or options.bundle / "models" / "model.pt"
    further = (options.reduction_factor, options.metrics, options.large_files_url)
    path = pack(options.bundle, checkpoint, options.output, *further)
    print(f"{path}  {path.stat().st_size:,} bytes")
    print(f"sha256 {sha256(path)}")
    print(f"next: dcd verify {path}")
