"""Make bundles (teacher, student, DCD student) of a network trained with nnU-Net v2 (3d_fullres).

docs/bring_your_teacher.md explains what comes out. The teacher's label maps are nnU-Net's (without test-time
mirroring). Several folds become one teacher, an ensemble.
"""

import argparse
from pathlib import Path

from dcd_ext.nnunet.importing import import_nnunet

EXAMPLE = "dcd import-nnunet --results nnUNet_results/Dataset004_Hippocampus --output bundles --folds 0 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="folder with nnU-Net's plans.json")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder that receives the bundles")
    parser.add_argument("--folds", nargs="+", metavar="N", help="0 1 2 3 4, or all (default: every numbered fold)")
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", help="name of the files (default: %(default)s)")
    parser.add_argument("--raw", type=Path, metavar="DIR", help="raw data set; also writes a datalist.json")
    parser.add_argument("--splits", type=Path, metavar="FILE", help="splits_final.json (default: nnU-Net's own)")


def run(options: argparse.Namespace) -> None:
    arguments = (options.results, options.output, options.folds, options.raw, options.splits, options.checkpoint)
    for path in import_nnunet(*arguments):
        print(path)
