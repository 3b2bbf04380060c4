#!/usr/bin/env python3
"""Write a synthetic data set in the layout of BraTS 2024 GLI, ISLES 2022 or the Decathlon."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dcd_ext.data.phantoms import LAYOUTS, PhantomSpec, write_phantoms
from dcd_ext.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: command line without the program's name; None takes ``sys.argv``.

    Returns:
        0, or 1 after an error that was printed as one line.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the cases")
    parser.add_argument("--cases", type=int, default=10, help="labelled scans (default 10)")
    parser.add_argument("--test-cases", type=int, default=0, help="further scans without labels (default 0)")
    parser.add_argument("--layout", choices=LAYOUTS, default="brats24")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels (default: small)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--flair-spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), default=(0.875, 0.875, 5.0), help="isles22, mm"
    )
    parser.add_argument("--workers", type=int, help="processes (default: the cores there are)")
    options = parser.parse_args(arguments)
    spec = PhantomSpec(
        root=options.output,
        layout=options.layout,
        cases=options.cases,
        test_cases=options.test_cases,
        shape=tuple(options.shape) if options.shape else None,
        seed=options.seed,
        flair_spacing=tuple(options.flair_spacing),
    )
    try:
        write_phantoms(spec, workers=options.workers)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.cases + options.test_cases} cases in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
