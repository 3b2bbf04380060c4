"""Time of a whole distillation step next to what cannot be avoided: the teacher's encoder and the plain student step.

Networks, losses and hooks are those of ``brats24_segmentation_student_dcd`` (teacher r = 1, student r = 4), the steps
those of MONAI's ``SupervisedTrainer`` with the shipped handlers: forward, deep supervision loss, backward, clipping,
SGD. float32 on CPU, AMP on CUDA.

Usage:
    python scripts/bench_step.py [--side 96] [--repeats 5] [--threads 2] [--markdown] [--json FILE]

The three take turns, so that a busy machine disturbs them alike; ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from dcd_ext.distill import DistillationHandler
from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.io import write_json
from dcd_ext.networks import prepare_for_training
from dcd_ext.versions import environment

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"teacher": "teacher encoder", "student": "plain student step", "distillation": "distillation step"}


def load_config(side: int, device: torch.device) -> ConfigParser:
    """The DCD student's training config at a cubic patch."""
    bundle = ROOT / "bundles" / "brats24_segmentation_student_dcd"
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser.update({"bundle_root": str(bundle), "patch_size": [side] * 3, "device": f"$torch.device('{device}')"})
    return parser


def make_batch(parser: ConfigParser, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """One random patch with every class in it."""
    generator = torch.Generator().manual_seed(0)
    grid = parser.get_parsed_content("patch_size")
    channels, classes = parser.get_parsed_content("in_channels"), parser.get_parsed_content("num_classes")
    image = torch.randn(1, channels, *grid, generator=generator)
    label = torch.randint(0, classes, (1, 1, *grid), generator=generator).float()
    return [{"image": image.to(device), "label": label.to(device)}]


def make_trainer(parser: ConfigParser, device: torch.device, teacher: FrozenTeacher | None) -> SupervisedTrainer:
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
        train_data_loader=make_batch(parser, device),
        network=network,
        loss_function=parser.get_parsed_content("loss"),
        optimizer=optimizer,
        train_handlers=handlers,
        amp=device.type == "cuda",
        decollate=False,
        optim_set_to_none=True,
    )


def make_steps(side: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """What is timed: name -> one step."""
    parser = load_config(side, device)
    teacher = FrozenTeacher(parser.get_parsed_content("teacher_def")()).to(device)
    hooks = FeatureHooks(teacher.network, parser.get_parsed_content("taps"), stop_after_last=True)
    image = make_batch(parser, device)[0]["image"]

    def teacher_encoder() -> None:
        with hooks, torch.autocast(device.type, enabled=device.type == "cuda"):
            teacher(image)
        hooks.pop()

    def step_of(trainer: SupervisedTrainer) -> Callable[[], None]:
        def step() -> None:
            trainer.state.max_epochs += 1
            trainer.run()

        return step

    plain, distilled = make_trainer(parser, device, None), make_trainer(parser, device, teacher)
    return {"teacher": teacher_encoder, "student": step_of(plain), "distillation": step_of(distilled)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians, minima and maxima in seconds, and the ratio."""
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    logging.getLogger("ignite").setLevel(logging.WARNING)
    steps = make_steps(args.side, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(args.repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat > 0:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "side": args.side,
        "repeats": args.repeats,
        "seconds": {n: {"median": medians[n], "min": min(t), "max": max(t)} for n, t in times.items()},
        "ratio": medians["distillation"] / (medians["teacher"] + medians["student"]),
        "environment": {**environment(device), "threads": args.threads},
    }


def table(result: dict[str, Any], markdown: bool) -> str:
    """The result for people."""
    rows = [["", "seconds", "min", "max"]]
    for name, seconds in result["seconds"].items():
        rows.append([NAMES[name], *(f"{seconds[k]:.3f}" for k in ("median", "min", "max"))])
    ratio = f"distillation step / (teacher encoder + plain student step) = {result['ratio']:.3f}"
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], "", ratio])
    return "\n".join(
        [*("  ".join(cell.rjust(w) for cell, w in zip(r, (20, 9, 9, 9), strict=True)) for r in rows), ratio]
    )


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96, help="patch side in voxels, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    result = measure(args)
    e = result["environment"]
    print(f"{args.side}³ patch, batch 1, {e['device']}, {e['threads']} threads, PyTorch {e['torch']}")
    print(table(result, args.markdown))
    if args.json:
        write_json(result, args.json)
        print(json.dumps({"ratio": result["ratio"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
