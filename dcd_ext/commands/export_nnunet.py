"""Write the network of an imported bundle, or of its student, as a folder that nnUNetv2_predict runs.

The folder lies below --output as below $nnUNet_results. Stock nnU-Net v2.5 or later needs nothing else.
"""

import argparse
from pathlib import Path

from dcd_ext.nnunet.exporting import export_nnunet

EXAMPLE = "dcd export-nnunet bundles/Dataset004_Hippocampus_segmentation_student_dcd --output nnUNet_results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="an imported bundle's folder with models/model.pt")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder that receives the results")


def run(options: argparse.Namespace) -> None:
    print(export_nnunet(options.bundle, options.output))
