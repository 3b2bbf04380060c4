"""Make a small student of your own segmentation bundle, and the bundle that distils it.

Any bundle in the Model Zoo's format whose network has a width: SegResNet, UNet, DynUNet, SwinUNETR,
ResidualEncoderUNet and others. The student keeps the bundle's transforms, inferer, loss and data. Nothing of the
bundle runs while it is read, unless --trust is given. With a budget the widest student that fits is made.
"""

import argparse
import logging
from pathlib import Path

from dcd_ext.commands.common import positive
from dcd_ext.networks import count_parameters
from dcd_ext.students.bundle import require_new, write_student
from dcd_ext.students.hooks import input_shapes, propose, table
from dcd_ext.students.teacher import TeacherBundle
from dcd_ext.students.widths import narrow
from dcd_ext.tables import to_text

EXAMPLE = "dcd distil bundles/spleen_ct_segmentation --output bundles/spleen_ct_student"
logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", type=Path, metavar="TEACHER_BUNDLE", help="folder of a trained bundle")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle")
    parser.add_argument("--reduction_factor", type=positive, help="divides every width (default 4)")
    parser.add_argument("--hooks", nargs="+", default=[], metavar="MODULE", help="modules to compare (default: found)")
    parser.add_argument("--kd_weight", type=float, default=0.05, help="highest weight of the loss (default 0.05)")
    parser.add_argument("--weights", type=Path, help="the teacher's weights (default models/model.pt or model.ts)")
    parser.add_argument("--shape", nargs=3, type=positive, metavar=("X", "Y", "Z"), help="of an input, in voxels")
    parser.add_argument("--trust", action="store_true", help="run the bundle's expressions and its scripts/")
    names = parser.add_argument_group("names, where the bundle's are unusual")
    names.add_argument("--config_file", metavar="NAME", help="training config below configs/ (default train.*)")
    names.add_argument("--network_key", metavar="KEY", help="id of the network's definition (default network_def)")
    names.add_argument("--trainer_key", metavar="KEY", help="id of the trainer (default train::trainer)")
    names.add_argument("--width_arg", nargs="+", metavar="NAME", help="the network's arguments that are widths")


def run(options: argparse.Namespace) -> int:
    """Everything is computed before anything is written."""
    require_new(options.output)
    teacher = TeacherBundle(options.teacher, options.config_file, options.network_key, options.trust)
    teacher.load_weights(options.weights)
    factor = options.reduction_factor or 4
    definition = narrow(teacher.definitions, teacher.network_key, teacher.network, factor, options.width_arg)
    student = teacher.build(definition)
    shapes = input_shapes(options.shape, teacher.spatial_shape)
    hooks = propose(teacher.network, student, teacher.channels, shapes, options.hooks)
    write_student(teacher, definition, hooks, options.output, options.trainer_key, options.kd_weight)
    numbers = [count_parameters(network) for network in (teacher.network, student)]
    print(f"parameters: {numbers[0]:,} -> {numbers[1]:,} (1/{numbers[0] / numbers[1]:.1f})\n")
    print(to_text(table(hooks)))
    if teacher.imports_code and not options.trust:
        logger.warning("the configs use scripts/: copied unread; it runs when the new bundle is trained or used")
    start = f"--bundle_root {options.output} --config_file {options.output / 'configs' / teacher.train_file}"
    print(f"\n{options.output}; next: python -m monai.bundle run training {start}")
    return 0
