"""Export the network of a trained bundle: TorchScript, ONNX, OpenVINO, INT8, or a folder that runs without torch.

torchscript and onnx lie beside models/model.pt; verify them with dcd verify. standalone is a folder with the network
and predict.py, which segments images with numpy, scipy, nibabel and OpenVINO. int8 is such a folder in models/int8,
with a quantised network; layers stay in float32 where --max_drop needs it, the largest accepted drop of the mean Dice
on the held-out fold of --dataset_dir.
"""

import argparse
from pathlib import Path

from dcd_ext.bundles.export import FORMATS, export
from dcd_ext.commands.common import positive_number
from dcd_ext.errors import UserError

EXAMPLE = "dcd export bundles/hippocampus_segmentation_student --formats torchscript onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder with models/model.pt")
    formats = [*FORMATS, "int8", "standalone"]
    parser.add_argument("--formats", nargs="+", choices=formats, default=["torchscript"], help="default: torchscript")
    parser.add_argument("--output", type=Path, help="folder of standalone (default models/standalone)")
    parser.add_argument("--dataset_dir", type=Path, help="for int8: prepared data")
    parser.add_argument("--fold", type=int, default=0, help="for int8: the held-out fold that judges (default 0)")
    drop = "for int8: largest drop of Dice (default 0.005)"
    parser.add_argument("--max_drop", type=positive_number, default=0.005, help=drop)


def run(options: argparse.Namespace) -> None:
    for path, difference in export(options.bundle, [name for name in options.formats if name in FORMATS]):
        print(f"{path}  {path.stat().st_size:,} bytes, largest difference to the network {difference:.1e}")
    if "int8" in options.formats:
        _int8(options)
    if "standalone" in options.formats:
        from dcd_ext.predict.standalone import write_standalone

        print(write_standalone(options.bundle, options.output or options.bundle / "models" / "standalone"))


def _int8(options: argparse.Namespace) -> None:
    from dcd_ext.predict.quantize import export_int8

    if options.dataset_dir is None:
        step = "pass --dataset_dir, prepared by dcd prepare"
        raise UserError("no data to judge INT8", "--dataset_dir", "prepared data", "nothing", step)
    folder, dice = export_int8(options.bundle, options.dataset_dir, options.fold, options.max_drop)
    print(f"{folder}  mean Dice {dice['dice_int8']} after {dice['dice_float32']}, {dice['cases']} cases")
