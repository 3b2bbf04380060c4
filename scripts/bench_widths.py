"""Measure a task's network at several widths: parameters, operations, latency per patch and per volume.

Networks, memory format and sliding window come from the task's student bundle, in evaluation; float32 on a CPU, float16
autocast on a GPU. All networks take turns, so that a busy machine disturbs them alike; time does not depend on the
values, so the images are noise.
Writes widths_<task>.json, .md and .svg.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from monai.bundle import ConfigParser

from dcd_ext.bundles.tools import open_bundle
from dcd_ext.commands.common import AXES, positive
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.evaluation.record import count_flops
from dcd_ext.io import write_atomically
from dcd_ext.networks import count_parameters, memory_format
from dcd_ext.report.figures import RUN_COLOURS, new_figure, style
from dcd_ext.tables import Table, to_markdown, to_text
from dcd_ext.versions import environment
from scripts.benchmark import ROOT, spread, time_in_turns, write_page

# passes before the clock starts: patches, then volumes, whose networks are warm by then
WARM_UP = {"patch": 2, "volume": 1}
SECONDS = {"patch": "seconds_per_patch", "volume": "seconds_per_volume"}


def open_student(bundle: Path, factor: int, monai_inferer: bool) -> ConfigParser:
    """The bundle's training config at another width."""
    override = {"reduction_factor": factor, "network_def::deep_supervision": False, "device": "cpu", "amp": False}
    if monai_inferer:
        override["validate::inferer::_target_"] = "SlidingWindowInferer"
    return open_bundle(str(bundle), [str(bundle / "configs" / "train.json")], **override)


def measure(options: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """Cost of the network at each ``--factors``, relative to the first one."""
    parsers = {r: open_student(bundle, r, options.monai_inferer) for r in options.factors}
    first = parsers[options.factors[0]]
    strides = [math.prod(axis) for axis in zip(*first.get_parsed_content("strides"), strict=True)]
    # --small: two voxels a side at the deepest stage
    patch = options.patch or ([2 * s for s in strides] if options.small else first.get_parsed_content("patch_size"))
    if any(side % stride for side, stride in zip(patch, strides, strict=True)):
        raise UserError("patch does not fit the network", "--patch", f"multiples of {strides}", patch, "correct it")
    volume = options.volume or [side + side // 2 for side in patch]
    channels = first.get_parsed_content("in_channels")
    networks: dict[int, Any] = {r: p.get_parsed_content("network_def", lazy=False) for r, p in parsers.items()}
    layout = memory_format(options.device)
    for network in networks.values():
        network.eval().to(options.device, memory_format=layout)
        if options.compile:
            network.compile(dynamic=False)
    image, whole = (torch.randn(1, channels, *sides, device=options.device) for sides in (patch, volume))
    # one for each network: what a GPU records of one must not take the place of another's
    inferers: dict[int, Any] = {r: p.get_parsed_content("validate::inferer") for r, p in parsers.items()}
    inferer = inferers[options.factors[0]]
    repeats = {"patch": options.repeats, "volume": options.volume_repeats}
    half = torch.device(options.device).type == "cuda"
    with torch.inference_mode(), torch.autocast("cuda", enabled=half):
        patches = {r: partial(network, image) for r, network in networks.items()}
        volumes = {r: partial(inferers[r], whole, network) for r, network in networks.items()}
        times = {
            SECONDS[name]: time_in_turns(calls, repeats[name], WARM_UP[name])
            for name, calls in {"patch": patches, "volume": volumes}.items()
        }
    members = [
        {
            "reduction_factor": r,
            "features": list(parsers[r].get_parsed_content("network_def::features_per_stage")),
            "parameters": count_parameters(network),
            "flops_per_patch": count_flops(network, image.shape[1:]),
            **{key: spread(seconds[r]) for key, seconds in times.items()},
        }
        for r, network in networks.items()
    ]
    return {
        "format": "dcd-widths-1",
        "task": options.task,
        "patch": list(patch),
        "volume": list(volume),
        "repeats": repeats,
        "warm_up": WARM_UP,
        "memory_format": str(layout),
        "inferer": f"{type(inferer).__module__}.{type(inferer).__name__}",
        "compiled": options.compile,
        "precision": "float16 autocast" if half else "float32",
        "environment": environment(options.device),
        "members": [{**m, "relative": _relative(m, members[0])} for m in members],
    }


def _relative(member: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, float | None]:
    """Shares saved against the first member, in [0, 1]."""

    def saved(key: str) -> float | None:
        values = [m[key]["median"] if isinstance(m[key], dict) else m[key] for m in (member, first)]
        return None if None in values else 1 - values[0] / values[1]

    return {f"{key}_saved": saved(key) for key in ("parameters", "flops_per_patch", *SECONDS.values())}


def widths_table(result: dict[str, Any]) -> Table:
    """One row per member."""
    header = ["reduction factor", "parameters", "fewer", "GFLOPs per patch", "fewer"]
    header += [part for name in SECONDS for part in (f"s per {name}", "lower")]
    rows = []
    for i, m in enumerate(result["members"]):
        # the first row is what the others are compared with
        relative, flops = (m["relative"] if i else {}), m["flops_per_patch"]
        row = [str(m["reduction_factor"]), f"{m['parameters']:,}", _percent(relative.get("parameters_saved"))]
        row += [f"{flops / 1e9:,.3g}", _percent(relative.get("flops_per_patch_saved"))]
        for key in SECONDS.values():
            row += [f"{m[key]['median']:.3g}" if m[key] else "–", _percent(relative.get(f"{key}_saved"))]
        rows.append(row)
    repeats, e = result["repeats"], result["environment"]
    sizes = [f"{n} {'×'.join(map(str, result[n]))} ({repeats[n]} passes)" for n in SECONDS if repeats[n]]
    note = (
        f"Batch 1, {', '.join(sizes)}, sliding window for the volume; {result['precision']} on {e['device']}, "
        f"threads: {e['threads']}, PyTorch {e['torch']}; medians after a warm-up."
    )
    return Table(f"{result['task']}: the same network at several widths", header, rows, note)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def widths_plot(result: dict[str, Any]) -> Figure:
    """Latency over parameters."""
    with style():
        figure = new_figure(width=4.3)
        axes: Axes = figure.subplots()
        for colour, (name, key) in zip(RUN_COLOURS[1:], SECONDS.items(), strict=False):
            points = [(m["parameters"] / 1e6, m[key]["median"]) for m in result["members"] if m[key]]
            if points:
                axes.loglog(*zip(*points, strict=True), "o-", color=colour, label=f"one {name}", lw=1.6, ms=4)
        for m in result["members"]:
            place, label = (m["parameters"] / 1e6, m["seconds_per_patch"]["median"]), f"r = {m['reduction_factor']}"
            axes.annotate(label, place, (5, -3), textcoords="offset points", fontsize=8)
        axes.margins(x=0.15, y=0.1)
        for axis in (axes.xaxis, axes.yaxis):  # plain numbers
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set(
            xlabel="parameters, millions",
            ylabel=f"seconds on {result['environment']['device']}",
            title=f"{result['task']}: latency",
        )
        axes.legend(frameon=False, fontsize=8)
    return figure


def write_results(result: dict[str, Any], stem: Path, command: str) -> None:
    """``.json``, ``.svg`` and a ``.md`` page with table, plot and command."""
    parts = [f"r = {m['reduction_factor']}: {m['seconds_per_patch']['median']:.3g} s" for m in result["members"]]
    alt = f"Latency per patch over parameters of the {result['task']} network. {', '.join(parts)}."
    remark = (
        f"Networks in memory format `{result['memory_format']}`, taking turns. Operations are those of the "
        "convolutions, two per multiply-add; shares are against the first row."
    )
    parts = [to_markdown(widths_table(result)), f"![{alt}]({stem.name}.svg)", remark]
    figure, metadata = widths_plot(result), {"Title": alt, "Date": None}
    write_atomically(stem.with_suffix(".svg"), lambda name: figure.savefig(name, format="svg", metadata=metadata))
    write_page(stem, f"{result['task']}: the cost of width", parts, command, result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = sorted(p.name[:-21] for p in (ROOT / "bundles").glob("*_segmentation_student"))
    parser.add_argument("--task", choices=tasks, default="brats24", help="task (default brats24)")
    parser.add_argument("--factors", type=positive, nargs="+", default=[1, 2, 4, 8], metavar="R")
    parser.add_argument("--patch", type=positive, help="default: the bundle's patch", **AXES)
    parser.add_argument("--volume", type=positive, help="default: 1.5 patches", **AXES)
    parser.add_argument("--repeats", type=positive, default=10, help="timed passes per patch (default 10)")
    parser.add_argument("--volume_repeats", type=int, default=3, help="timed passes per volume (default 3; 0: none)")
    parser.add_argument("--threads", type=positive, help="number of threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="such as cuda:0, which computes in float16 (default cpu)")
    parser.add_argument("--compile", action="store_true", help="torch.compile, for minutes before the first pass")
    parser.add_argument("--monai_inferer", action="store_true", help="MONAI's sliding windows, not the bundle's")
    parser.add_argument("--small", action="store_true", help="smallest patch, to try the command")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the results (default runs)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    result = measure(options, ROOT / "bundles" / f"{options.task}_segmentation_student")
    stem = options.output / f"widths_{options.task}"
    write_results(result, stem, shlex.join(["python", "-m", "scripts.bench_widths", *arguments]))
    print(to_text(widths_table(result)))
    print(f"{stem}.json, .md and .svg")


if __name__ == "__main__":
    show_plainly()
    main()
