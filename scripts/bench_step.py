"""Time of a whole distillation step next to what cannot be avoided: the teacher's encoder and the plain student step.

Networks, losses and hooks are those of ``brats24_segmentation_student_dcd`` (teacher r = 1, student r = 4), the steps
those of MONAI's ``SupervisedTrainer`` with the shipped handlers: forward, deep supervision loss, backward, clipping,
SGD. float32 on CPU, AMP on CUDA.

The three take turns, so that a busy machine disturbs them alike; ratios are of medians.
"""

import argparse
import logging
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from dcd_ext.bundles.tools import open_bundle
from dcd_ext.distill import DistillationHandler
from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.networks import prepare_for_training
from dcd_ext.tables import Table
from dcd_ext.versions import environment
from scripts.benchmark import ROOT, show, spread, time_in_turns, torch_parser

NAMES = {"teacher": "teacher encoder", "student": "plain student step", "distillation": "distillation step"}


def make_batch(parser: ConfigParser, device: torch.device, size: int) -> list[dict[str, torch.Tensor]]:
    """One random patch with every class in it."""
    generator = torch.Generator().manual_seed(0)
    grid = parser.get_parsed_content("patch_size")
    channels, classes = parser.get_parsed_content("in_channels"), parser.get_parsed_content("num_classes")
    image = torch.randn(size, channels, *grid, generator=generator)
    label = torch.randint(0, classes, (size, 1, *grid), generator=generator).float()
    return [{"image": image.to(device), "label": label.to(device)}]


def make_trainer(
    parser: ConfigParser, batch: list[dict[str, torch.Tensor]], device: torch.device, teacher: FrozenTeacher | None
) -> SupervisedTrainer:
    """A trainer of the student, with distillation if there is a teacher."""
    network = prepare_for_training(parser.get_parsed_content("network_def", lazy=False), device=device)
    groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
    handlers: list[Any] = []
    if teacher is not None:
        kd_loss = parser.get_parsed_content("kd_loss_def", lazy=False).to(device)
        groups.append({"params": list(kd_loss.parameters())})
        handlers.append(DistillationHandler(network, teacher, kd_loss, 0.01, parser.get_parsed_content("taps")))
    optimizer = torch.optim.SGD(groups, lr=1e-4, momentum=0.99, nesterov=True, weight_decay=3e-5)
    optimizer.register_step_pre_hook(parser.get_parsed_content("train::clip_gradients"))
    return SupervisedTrainer(
        device=device,
        max_epochs=0,
        train_data_loader=batch,
        network=network,
        loss_function=parser.get_parsed_content("loss"),
        optimizer=optimizer,
        train_handlers=handlers,
        amp=device.type == "cuda",
        decollate=False,
        optim_set_to_none=True,
    )


def train_one_epoch(trainer: SupervisedTrainer) -> None:
    trainer.state.max_epochs += 1
    trainer.run()


def make_steps(side: int, size: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """What is timed: name -> one step."""
    bundle = ROOT / "bundles" / "brats24_segmentation_student_dcd"
    override = {"patch_size": [side] * 3, "device": f"$torch.device('{device}')"}
    parser = open_bundle(str(bundle), [str(bundle / "configs" / "train.json")], **override)
    teacher = FrozenTeacher(parser.get_parsed_content("teacher_def")()).to(device)
    hooks = FeatureHooks(teacher.network, parser.get_parsed_content("taps"), stop_after_last=True)
    batch = make_batch(parser, device, size)
    image = batch[0]["image"]

    def teacher_encoder() -> None:
        with hooks, torch.autocast(device.type, enabled=device.type == "cuda"):
            teacher(image)
        hooks.pop()

    teachers = {"student": None, "distillation": teacher}
    trained = {name: partial(train_one_epoch, make_trainer(parser, batch, device, t)) for name, t in teachers.items()}
    return {"teacher": teacher_encoder, **trained}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians, minima and maxima in seconds, and the ratio."""
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    logging.getLogger("ignite").setLevel(logging.WARNING)
    steps = make_steps(args.side, args.batch, device)
    times = time_in_turns(steps, args.repeats, warm_up=1)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "side": args.side,
        "batch": args.batch,
        "repeats": args.repeats,
        "seconds": {name: spread(seconds) for name, seconds in times.items()},
        "ratio": medians["distillation"] / (medians["teacher"] + medians["student"]),
        "environment": {**environment(device), "threads": args.threads},
    }


def step_table(result: dict[str, Any]) -> Table:
    """One row per step, and the ratio."""
    seconds = result["seconds"]
    rows = [[NAMES[name], *(f"{s[k]:.3f}" for k in ("median", "min", "max"))] for name, s in seconds.items()]
    ratio = f"distillation step / (teacher encoder + plain student step) = {result['ratio']:.3f}"
    return Table("", ["", "seconds", "min", "max"], rows, ratio)


def main(argv: list[str] | None = None) -> None:
    parser = torch_parser(__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96, help="patch side in voxels, a multiple of 32")
    args = parser.parse_args(argv)
    result = measure(args)
    e = result["environment"]
    print(f"{args.side}³ patch, batch {args.batch}, {e['device']}, {e['threads']} threads, PyTorch {e['torch']}")
    show(step_table(result), result, args)


if __name__ == "__main__":
    main()
