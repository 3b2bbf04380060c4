"""Time and memory of the DCD loss next to the direct wavelet form and to plain feature MSE.

Forward plus backward of (a) ``dcd_ext.losses.DCDLoss``, (b) its reference form (the difference projected once by small
matrices, gradients by autograd), (c) the direct form (1×1×1 convolution, then ptwt decompose, mask, reconstruct for
student and teacher, MSE) and (d) plain feature MSE with the same projection, on the six brats24 teacher stages at the
112×160×128 patch. float32 on CPU, AMP on CUDA. All variants give the gradients of student features, projection
weight and bias, and agree with each other where they should.

Variants take turns, so that a busy machine disturbs them alike; each peak comes from a process of its own. The direct
form takes minutes at the full patch: it is run once after its warm-up, stage by stage, and not for all stages at once.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dcd_ext.losses import DCDLoss
from dcd_ext.losses._projections import make_projections
from dcd_ext.tables import Table
from dcd_ext.versions import environment
from dcd_ext.wavelets.axis_maps import max_levels
from dcd_ext.wavelets.energy.dense import make_dense_plan
from dcd_ext.wavelets.energy.engine import _recordings
from dcd_ext.wavelets.energy.plan import make_plan
from scripts.benchmark import peak_extra, show, time_in_turns, torch_parser

TEACHER, STUDENT = (32, 64, 128, 256, 320, 320), (8, 16, 32, 64, 80, 80)
STRIDES = ((1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16), (16, 32, 32))
PATCH, SMALL_PATCH = (112, 160, 128), (56, 80, 64)
NAMES = {"dcd": "DCD loss", "reference": "reference form", "direct": "direct ptwt", "mse": "feature MSE"}


class PlainLoss(nn.Module):
    """Feature MSE behind the same projections; with ``direct`` both sides go through ptwt first."""

    def __init__(self, stages: Sequence[int], direct: bool) -> None:
        super().__init__()
        self.direct = direct
        widths = [STUDENT[i] for i in stages], [TEACHER[i] for i in stages]
        self.projections = make_projections(*widths, "conv", bias=True)

    def forward(self, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
        """Sum over stages of the mean squared error."""
        total = torch.zeros((), device=student[0].device)
        for s, t, projection in zip(student, teacher, self.projections, strict=True):
            s = projection(s)
            if self.direct:
                levels = min(3, max_levels(min(s.shape[2:]), "db4"))
                with torch.autocast(s.device.type, enabled=False):  # ptwt does not take float16
                    s, t = ptwt_details(s.float(), levels), ptwt_details(t.float(), levels)
            total = total + F.mse_loss(s.float(), t.float())
        return total


def ptwt_details(x: torch.Tensor, levels: int) -> torch.Tensor:
    """Decompose, zero LLL and all HHH, reconstruct, crop."""
    import ptwt

    low, *details = ptwt.wavedec3(x, "db4", mode="zero", level=levels)
    masked = [{k: torch.zeros_like(v) if k == "ddd" else v for k, v in level.items()} for level in details]
    full = ptwt.waverec3((torch.zeros_like(low), *masked), "db4")
    return full[..., : x.shape[2], : x.shape[3], : x.shape[4]]


def make_step(
    variant: str, stages: Sequence[int], args: argparse.Namespace
) -> tuple[Callable[[], float], list[torch.Tensor]]:
    """A function that runs forward and backward once and returns the loss, and what gets gradients.

    Inputs are the same for all variants.
    """
    device = torch.device(args.device)
    generator = torch.Generator(device).manual_seed(1)
    amp = torch.float16 if device.type == "cuda" else torch.float32
    shapes = [[side // s for side, s in zip(args.patch, stride, strict=True)] for stride in STRIDES]

    def features(channels: Sequence[int]) -> list[torch.Tensor]:
        sizes = [(args.batch, channels[i], *shapes[i]) for i in stages]
        return [torch.randn(size, generator=generator, device=device, dtype=amp) for size in sizes]

    student, teacher = [x.requires_grad_() for x in features(STUDENT)], features(TEACHER)
    loss: nn.Module = PlainLoss(stages, variant == "direct")
    if variant in ("dcd", "reference"):
        engine = "fast" if variant == "dcd" else "reference"
        loss = DCDLoss([STUDENT[i] for i in stages], [TEACHER[i] for i in stages], engine=engine)
    trained = [*student, *loss.to(device).parameters()]

    def step() -> float:
        for tensor in trained:
            tensor.grad = None
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            value = loss(student, teacher)
        value.backward()
        assert all(tensor.grad is not None for tensor in trained)
        return value.detach().item()

    return step, trained


def time_variants(stages: Sequence[int], variants: Sequence[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of every repeat per variant, taken in turns."""
    steps = {variant: make_step(variant, stages, args)[0] for variant in variants}
    values = {variant: step() for variant, step in steps.items()}
    for other in {"reference", "direct"} & set(values):
        if "dcd" in values and abs(values["dcd"] - values[other]) > 1e-3 * values[other]:
            raise SystemExit(f"the loss {values['dcd']} differs from the {other} form's {values[other]}")
    direct = {variant: steps.pop(variant) for variant in ("direct",) if variant in steps}
    times = time_in_turns(steps, args.repeats) | time_in_turns(direct, 1)
    return {variant: [1e3 * seconds for seconds in times[variant]] for variant in variants}


def measure_memory(variant: str, stages: Sequence[int], args: argparse.Namespace) -> float:
    """:func:`peak_extra`, in a fresh process where the process's memory is what counts."""
    if torch.device(args.device).type == "cuda":
        # a recording keeps its plan, and its memory would serve the next
        for forget in (make_plan.cache_clear, make_dense_plan.cache_clear, _recordings.clear):
            forget()
        return peak_extra(*make_step(variant, stages, args))
    command = [sys.executable, "-m", "scripts.bench_loss", *sys.argv[1:]]
    command += ["--peak-of", variant, "--stages", *map(str, stages)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per stage, their sum, and all stages in one call; columns are what was measured of each variant."""
    rows: list[dict[str, Any]] = []
    for name, stages in [*((str(i), [i]) for i in range(6)), ("in one call", list(range(6)))]:
        variants = [v for v in args.variants if v != "direct" or len(stages) == 1]
        row: dict[str, Any] = {"stage": name}
        if args.only != "memory":
            times = time_variants(stages, variants, args)
            row |= {f"{NAMES[v]} ms": statistics.median(t) for v, t in times.items()}
            row |= {f"{NAMES[v]} ms, all repeats": t for v, t in times.items()}
        if args.only != "time":
            row |= {f"{NAMES[v]} MiB": measure_memory(v, stages, args) for v in variants}
        print({k: round(x, 1) if isinstance(x, float) else x for k, x in row.items()}, file=sys.stderr, flush=True)
        rows.append(row)
    if args.only != "memory":
        columns = [f"{NAMES[v]} ms" for v in args.variants]
        rows.insert(-1, {"stage": "sum", **{c: sum(row[c] for row in rows[:-1]) for c in columns}})
    return rows


def loss_table(rows: list[dict[str, Any]], variants: Sequence[str]) -> Table:
    """The results: times, memory, and both relative to the DCD loss."""
    keys = [f"{NAMES[v]} {unit}" for unit in ("ms", "MiB") for v in variants if f"{NAMES[v]} {unit}" in rows[0]]
    others = [key for key in keys if not key.startswith("DCD")]
    table = Table("", ["stage", *keys, *(f"DCD / {key}" for key in others)], [])
    for row in rows:
        numbers = [f"{row[key]:.1f}" if key in row else "" for key in keys]
        ratios = [_ratio(row.get("DCD loss " + key.split()[-1]), row.get(key)) for key in others]
        table.rows.append([row["stage"], *numbers, *ratios])
    return table


def _ratio(own: float | None, other: float | None) -> str:
    if not own or not other:  # not measured, or less than is allocated at once
        return ""
    return f"{own / other:.2f}" if own >= 0.1 * other else f"1/{other / own:.0f}"


def parse() -> argparse.Namespace:
    parser = torch_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="half the patch: 56×80×64")
    parser.add_argument("--variants", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--only", choices=("time", "memory"), help="measure only this (default: both)")
    parser.add_argument("--peak-of", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--stages", type=int, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.patch = SMALL_PATCH if args.small else PATCH
    args.variants = [v for v in args.variants if v != "direct" or importlib.util.find_spec("ptwt")]
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        print(peak_extra(*make_step(args.peak_of, args.stages, args)))
        return
    machine = environment(args.device) | {"threads": args.threads}
    print(", ".join(str(machine[k]) for k in ("device", "threads")), "threads, PyTorch", machine["torch"])
    rows = measure(args)
    content = {"environment": machine, "patch": args.patch, "batch": args.batch, "repeats": args.repeats, "rows": rows}
    show(loss_table(rows, args.variants), content, args)


if __name__ == "__main__":
    main()
