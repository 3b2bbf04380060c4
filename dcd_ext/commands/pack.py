#!/usr/bin/env python3
"""Pack a bundle with trained weights into a release zip: the same input gives the same bytes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.bundles.pack import pack
from dcd_ext.commands.common import positive
from dcd_ext.errors import UserError
from dcd_ext.io import sha256


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 for an error of the user's.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle's folder, e.g. bundles/hippocampus_segmentation_student")
    parser.add_argument("--checkpoint", type=Path, help="trained weights (default: models/model.pt in the bundle)")
    parser.add_argument("--metrics", type=Path, help="metrics.json of the evaluation of exactly these weights")
    parser.add_argument("--reduction_factor", type=positive, help="width divisor of the weights, if not the bundle's")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder of the zip (default: dist)")
    parser.add_argument("--large_files_url", help="leave the weights out, to be downloaded below this address")
    options = parser.parse_args(arguments)
    checkpoint = options.checkpoint or options.bundle / "models" / "model.pt"
    try:
        path = pack(
            options.bundle,
            checkpoint,
            options.output,
            reduction_factor=options.reduction_factor,
            metrics=options.metrics,
            large_files_url=options.large_files_url,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}  {path.stat().st_size:,} bytes")
    print(f"sha256 {sha256(path)}")
    print(f"next: dcd verify {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
