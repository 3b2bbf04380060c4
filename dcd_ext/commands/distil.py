"""Make a small student of your own segmentation bundle, and the bundle that distils it.

Any bundle in the Model Zoo's format whose network has a width: SegResNet, UNet, DynUNet, SwinUNETR,
ResidualEncoderUNet and others. The student keeps the bundle's transforms, inferer, loss and data. Nothing of the
bundle runs while it is read, unless --trust is given. With a budget the widest student that fits is made.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dcd_ext.commands.common import AXES, positive, positive_number
from dcd_ext.distill import start_from_teacher
from dcd_ext.errors import UserError
from dcd_ext.networks import count_parameters
from dcd_ext.students import budget
from dcd_ext.students.bundle import require_new, write_student
from dcd_ext.students.hooks import input_shapes, propose
from dcd_ext.students.hooks import table as hook_table
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
    weight = "highest weight of the loss (default 0.05)"
    parser.add_argument("--kd_weight", type=positive_number, default=0.05, help=weight)
    start = "begin with the teacher's strongest channels, not random weights"
    parser.add_argument("--start_from_teacher", action="store_true", help=start)
    parser.add_argument("--weights", type=Path, help="the teacher's weights (default models/model.pt or model.ts)")
    parser.add_argument("--patch", type=positive, help="shape of an input (default: found)", **AXES)
    parser.add_argument("--trust", action="store_true", help="run the bundle's expressions and its scripts/")
    limits = parser.add_argument_group("a budget in place of --reduction_factor, measured on this machine's CPU")
    limits.add_argument("--max_seconds", type=positive_number, metavar="S", help="per volume")
    ram = "of the whole process, which has 0.5 GiB at least"
    limits.add_argument("--max_ram", type=positive_number, metavar="GIB", help=ram)
    limits.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: torch's)")
    limits.add_argument("--image", type=Path, metavar="FILE", help="the volume to segment")
    limits.add_argument("--shape", type=positive, help="its shape, in place of a file", **AXES)
    names = parser.add_argument_group("names, where the bundle's are unusual")
    names.add_argument("--config_file", metavar="NAME", help="training config below configs/ (default train.*)")
    network = "id of the network's definition (default network_def, or what the trainer trains)"
    names.add_argument("--network_key", metavar="KEY", help=network)
    trainer = "id of the trainer (default train::trainer, or the only one)"
    names.add_argument("--trainer_key", metavar="KEY", help=trainer)
    names.add_argument("--width_arg", nargs="+", metavar="NAME", help="the network's arguments that are widths")


def run(options: argparse.Namespace) -> None:
    """Everything is computed before anything is written."""
    require_new(options.output)
    _check(options)
    teacher = TeacherBundle(options.teacher, options.config_file, options.network_key, options.trust)
    definition = _definition(teacher, options)
    student = teacher.build(definition)
    numbers = [count_parameters(network) for network in (teacher.network, student)]
    if 2 * numbers[1] > numbers[0]:
        where, expected = f"{teacher.definitions.file}, {teacher.network_key}", "fewer than half of the parameters"
        step = "pass --width_arg with all its widths, or a larger --reduction_factor"
        raise UserError("the student is hardly smaller", where, expected, "{1:,} of {0:,}".format(*numbers), step)
    teacher.load_weights(options.weights)
    shapes = input_shapes(options.patch, teacher.spatial_shape)
    hooks = propose(teacher.network, student, teacher.channels, shapes, options.hooks)
    if options.start_from_teacher:  # or the training would refuse it
        start_from_teacher(student, teacher.network)
    further = (options.trainer_key, options.kd_weight, options.start_from_teacher)
    write_student(teacher, definition, hooks, options.output, *further)
    print(f"parameters: {numbers[0]:,} -> {numbers[1]:,} (1/{numbers[0] / numbers[1]:.1f})\n")
    print(to_text(hook_table(hooks)))
    if teacher.imports_code and not options.trust:
        logger.warning("the configs use scripts/: copied unread; it runs when the new bundle is trained or used")
    if teacher.loading:
        text = "the training loads weights before it starts: take out those of the wide network, which do not fit (%s)"
        logger.warning(text, ", ".join(teacher.loading))
    if missing := teacher.missing_packages:
        text = "packages that the teacher's metadata name and training may need: pip install %s"
        logger.warning(text, " ".join(missing))
    start = f"--bundle_root {options.output} --config_file {options.output / 'configs' / teacher.train_file}"
    print(f"\n{options.output}; next: python -m monai.bundle run training {start}")


def _check(options: argparse.Namespace) -> None:
    """Options that need or exclude each other."""
    limited = options.max_seconds is not None or options.max_ram is not None
    where = "--max_seconds, --max_ram"
    if limited and options.reduction_factor:
        raise UserError(
            "two ways to choose the width", where, "one of them", "--reduction_factor, too", "leave one out"
        )
    if limited and not (options.image or options.shape):
        raise UserError("nothing to measure", where, "--image FILE or --shape X Y Z", "neither", "add one")


def _definition(teacher: TeacherBundle, options: argparse.Namespace) -> dict[str, Any]:
    """The student's network: of the given width, or the widest within the budget."""
    if options.max_seconds is None and options.max_ram is None:
        return narrow(teacher, options.reduction_factor or 4, options.width_arg)
    limits = budget.Budget(options.max_seconds, options.max_ram, options.threads)
    volume = options.image or tuple(options.shape)
    candidates = budget.widths(teacher, options.width_arg).items()
    bar = tqdm(candidates, desc="measure", unit="width", disable=None)
    measured = [budget.measure(teacher, factor, definition, volume, limits) for factor, definition in bar]
    print(f"{to_text(budget.table(measured, limits))}\n")
    chosen = budget.choose(teacher, measured, volume, limits)
    if chosen.factor == 1:
        found, step = "the teacher itself", "nothing to do, or pass --reduction_factor"
        raise UserError("the teacher is within the budget", teacher.root, "a reason to distil", found, step)
    print(f"reduction {chosen.factor} is within the budget, measured twice")
    return chosen.definition
