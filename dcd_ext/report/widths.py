"""Table, plot and page of a measured student family."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dcd_ext.report.figures import RUN_COLOURS, new_figure, style
from dcd_ext.tables import Table, to_markdown

__all__ = ["family_alt", "family_page", "family_plot", "family_table"]

_TIMES = {"patch": "seconds_per_patch", "volume": "seconds_per_volume"}


def family_table(result: dict[str, Any]) -> Table:
    """One row per member of what :func:`dcd_ext.bundles.widths.measure_family` returns."""
    header = ["reduction factor", "parameters", "fewer", "GFLOPs per patch", "fewer"]
    header += [part for name in _TIMES for part in (f"s per {name}", "lower")]
    has_dice = any(m.get("mean_dice") is not None for m in result["members"])
    header += ["mean Dice"] if has_dice else []
    rows = []
    for i, m in enumerate(result["members"]):
        # the first row is what the others are compared with
        relative, flops = (m["relative"] if i else {}), m["flops_per_patch"]
        row = [str(m["reduction_factor"]), f"{m['parameters']:,}", _percent(relative.get("parameters_saved"))]
        row += ["–" if flops is None else _gflops(flops), _percent(relative.get("flops_per_patch_saved"))]
        for key in _TIMES.values():
            row += [_seconds(m[key]), _percent(relative.get(f"{key}_saved"))]
        dice = m.get("mean_dice")
        rows.append([*row, *(["–" if dice is None else f"{dice:.4f}"] if has_dice else [])])
    repeats, e = result["repeats"], result["environment"]
    sizes = [f"{n} {'×'.join(map(str, result[n]))} ({repeats[n]} passes)" for n in _TIMES if repeats[n]]
    note = (
        f"Batch 1, {', '.join(sizes)}, sliding window for the volume; float32 on {e['device']}, "
        f"threads: {e['threads']}, PyTorch {e['torch']}; medians after a warm-up."
    )
    return Table(f"{result['task']}: the same network at several widths", header, rows, note)


def _gflops(flops: int) -> str:
    return f"{flops / 1e9:,.0f}" if flops >= 1e12 else f"{flops / 1e9:.3g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _seconds(times: dict[str, float] | None) -> str:
    return "–" if times is None else f"{times['median']:.3g}"


def family_plot(result: dict[str, Any]) -> Figure:
    """Latency over parameters, and Dice over latency where there are scores."""
    members = result["members"]
    scored = [m for m in members if m.get("mean_dice") is not None]
    first = next(key for key in _TIMES.values() if members[0][key])
    with style():
        figure = new_figure(width=8.6 if scored else 4.3)
        panels = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
        for colour, (name, key) in zip(RUN_COLOURS[1:], _TIMES.items(), strict=False):
            points = [(m["parameters"] / 1e6, m[key]["median"]) for m in members if m[key]]
            if points:
                panels[0].loglog(*zip(*points, strict=True), "o-", color=colour, label=f"one {name}", lw=1.6, ms=4)
        _name(panels[0], [(m, (m["parameters"] / 1e6, m[first]["median"])) for m in members])
        panels[0].set(xlabel="parameters, millions", ylabel="seconds on the CPU", title=f"{result['task']}: latency")
        panels[0].legend(frameon=False, fontsize=8)
        if scored:
            points = [(m[first]["median"], m["mean_dice"]) for m in scored]
            panels[1].semilogx(*zip(*points, strict=True), "o-", color=RUN_COLOURS[3], lw=1.6, ms=4)
            _name(panels[1], list(zip(scored, points, strict=True)))
            panels[1].set(xlabel="seconds per patch", ylabel="mean Dice", title=f"{result['task']}: Dice")
    return figure


def _name(axes: Axes, points: list[tuple[dict[str, Any], tuple[float, float]]]) -> None:
    """Write the reduction factor beside each point, and plain numbers along the logarithmic axes."""
    for member, place in points:
        label = f"r = {member['reduction_factor']}"
        axes.annotate(label, place, (5, -3), textcoords="offset points", fontsize=8)
    axes.margins(x=0.15, y=0.1)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def family_alt(result: dict[str, Any]) -> str:
    """What the plot shows, for those who cannot see it."""
    parts = []
    for m in result["members"]:
        times = [f"{m[key]['median']:.3g} s per {name}" for name, key in _TIMES.items() if m[key]]
        dice = [f"mean Dice {m['mean_dice']:.4f}"] if m.get("mean_dice") is not None else []
        text = ", ".join([f"{m['parameters'] / 1e6:.2f} million parameters", *times, *dice])
        parts.append(f"reduction factor {m['reduction_factor']}: {text}")
    return f"CPU latency over parameters of the {result['task']} network. {'; '.join(parts)}."


def family_page(result: dict[str, Any], command: str, picture: str) -> str:
    """A Markdown page with table, plot and the command that made it."""
    versions = "\n".join(f"- {name}: {value}" for name, value in result["environment"].items())
    return "\n".join(
        [
            f"# Student family: {result['task']}",
            "",
            to_markdown(family_table(result)),
            "",
            f"![{family_alt(result)}]({picture})",
            "",
            f"Written by\n\n```\n{command}\n```",
            "",
            f"Networks in memory format `{result['memory_format']}`, taking turns. Operations are those of the "
            "convolutions, two per multiply-add; shares are against the first row.",
            "",
            versions,
            "",
        ]
    )
