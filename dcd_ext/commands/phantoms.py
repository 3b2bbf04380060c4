"""Write a synthetic data set in the layout of BraTS 2024 GLI, ISLES 2022 or the Decathlon."""

import argparse
from pathlib import Path

from dcd_ext.commands.common import AXES, add_jobs, positive_number
from dcd_ext.data.phantoms import LAYOUTS, PhantomSpec, write_phantoms

EXAMPLE = "dcd phantoms --layout brats24 --cases 20 --output phantoms"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the cases")
    parser.add_argument("--cases", type=int, default=10, help="labelled scans (default 10)")
    parser.add_argument("--test_cases", type=int, default=0, help="further scans without labels (default 0)")
    parser.add_argument("--layout", choices=LAYOUTS, default="brats24", help="folder layout (default brats24)")
    parser.add_argument("--shape", type=int, help="voxels per axis (default: small)", **AXES)
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    spacing = PhantomSpec.flair_spacing
    parser.add_argument("--flair_spacing", type=positive_number, default=spacing, help="isles22, mm", **AXES)
    add_jobs(parser)


def run(options: argparse.Namespace) -> None:
    spec = PhantomSpec(
        root=options.output,
        layout=options.layout,
        cases=options.cases,
        test_cases=options.test_cases,
        shape=tuple(options.shape) if options.shape else None,
        seed=options.seed,
        flair_spacing=tuple(options.flair_spacing),
    )
    write_phantoms(spec, workers=options.jobs)
    print(f"{options.cases + options.test_cases} cases in {options.output}")
