"""Plots of scores, paired differences and training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dcd_ext.report.comparison import score
from dcd_ext.report.figures import RUN_COLOURS, new_figure, style, svg
from dcd_ext.report.runs import Run
from dcd_ext.report.tables import metric_title


def box_plot(runs: Sequence[Run], comparison: dict[str, Any], metric: str) -> str:
    """Distribution over cases per class and run; every case is a dot."""
    classes, cases = comparison["classes"], comparison["cases"]
    jitter = np.random.default_rng(0).uniform(-0.5, 0.5, len(cases))
    width = 0.8 / len(runs)
    with style():
        figure = new_figure()
        axes = figure.subplots()
        for k, run in enumerate(runs):
            for j, name in enumerate(classes):
                scores = [score(run, case, name, metric) for case in cases]
                kept = [(v, shift) for v, shift in zip(scores, jitter, strict=True) if v is not None]
                if kept:
                    position = j + (k - (len(runs) - 1) / 2) * width
                    dots, values = [position + 0.6 * width * shift for _, shift in kept], [v for v, _ in kept]
                    _box(axes, values, position, 0.8 * width, _colour(k))
                    axes.scatter(dots, values, s=4, color=_colour(k), alpha=0.5, lw=0)
        axes.set_xticks(range(len(classes)), classes)
        axes.grid(axis="x", visible=False)
        axes.set_title(metric_title(comparison, metric))
    parts = [f"{run.name} {_mean(comparison, metric, run.name)}" for run in runs]
    alt = f"Box plot of {metric_title(comparison, metric)} over {len(cases)} cases. Mean: {', '.join(parts)}."
    return svg(figure, alt)


def _colour(number: int) -> str:
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def _mean(comparison: dict[str, Any], metric: str, run: str) -> str:
    mean = comparison["results"][metric][comparison["classes"][-1]][run]["mean"]
    return "not defined" if mean is None else f"{mean:.3f}"


def _box(axes: Any, values: Sequence[float], position: float, width: float, colour: str) -> None:
    look: dict[str, Any] = {f"{part}props": {"color": colour} for part in ("whisker", "cap")}
    look["boxprops"] = {"facecolor": colour + "40", "edgecolor": colour}
    look["medianprops"] = {"color": colour, "linewidth": 2}
    axes.boxplot(
        [values], positions=[position], widths=width, showfliers=False, patch_artist=True, manage_ticks=False, **look
    )


def difference_plot(runs: Sequence[Run], comparison: dict[str, Any], metric: str) -> str:
    """Difference to the baseline per case, with mean and 95 % interval."""
    base = next(run for run in runs if run.name == comparison["baseline"])
    others = [(k, run) for k, run in enumerate(runs) if run is not base]
    name, cases = comparison["classes"][-1], comparison["cases"]
    jitter = np.random.default_rng(0).uniform(-0.22, 0.22, len(cases))
    with style():
        figure = new_figure(height=1.1 + 0.55 * len(others))
        axes = figure.subplots()
        axes.axvline(0, color="#2b3440", lw=1)
        for row, (k, run) in enumerate(others):
            pairs = [(score(run, c, name, metric), score(base, c, name, metric)) for c in cases]
            points = [(a - b, y) for (a, b), y in zip(pairs, jitter, strict=True) if a is not None and b is not None]
            axes.scatter([x for x, _ in points], [row + y for _, y in points], s=9, color=_colour(k), alpha=0.45, lw=0)
            entry = comparison["results"][metric][name][run.name]["difference"]
            if entry["ci95"] is not None:
                axes.plot(entry["ci95"], [row, row], color="#2b3440", lw=2.5, solid_capstyle="butt")
                axes.plot(entry["mean"], row, "D", color="white", mec="#2b3440", ms=6, zorder=5)
        axes.set_yticks(range(len(others)), [run.name for _, run in others])
        axes.set_ylim(len(others) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_title(f"{metric_title(comparison, metric)}: difference to {base.name}")
    means = [(r.name, comparison["results"][metric][name][r.name]["difference"]["mean"]) for _, r in others]
    parts = [f"{n} {m:+.3f}" for n, m in means if m is not None]
    return svg(figure, f"Paired differences to {base.name} in {metric_title(comparison, metric)}: {', '.join(parts)}.")


def training_plots(runs: Sequence[Run]) -> list[str]:
    """Validation Dice, losses and KD weight over epochs; what no run has recorded is left out."""
    plots = [
        _curves(runs, "Validation Dice", lambda e: e.get("val_mean_dice")),
        _curves(runs, "Segmentation loss (training)", lambda e: e.get("seg_loss", e.get("loss"))),
        _curves(runs, "Distillation loss, unweighted", lambda e: e.get("kd_loss"), log=True),
        _curves(runs, "Weight of the distillation loss", lambda e: e.get("kd_weight")),
        *(_stages(run) for run in runs),
    ]
    return [plot for plot in plots if plot]


def _curves(
    runs: Sequence[Run], title: str, value: Callable[[dict[str, Any]], float | None], log: bool = False
) -> str | None:
    lines = []
    for k, run in enumerate(runs):
        epochs = (run.training or {}).get("epochs", [])
        points = [(e["epoch"], v) for e in epochs if (v := value(e)) is not None]
        if points:
            lines.append((run.name, points, _colour(k)))
    return _lines(title, lines, log)


def _stages(run: Run) -> str | None:
    """Distillation loss of every stage of one run."""
    epochs = (run.training or {}).get("epochs", [])
    stages = sorted({key for e in epochs for key in e if key.startswith("kd_stage_")}, key=lambda s: int(s[9:]))
    shades = ("#08306b", "#2171b5", "#4e9fd1", "#d98c00", "#c14b00", "#7a1f00")
    lines = [
        (f"stage {s[9:]}", [(e["epoch"], e[s]) for e in epochs if e.get(s) is not None], shades[i % len(shades)])
        for i, s in enumerate(stages)
    ]
    return _lines(f"Distillation loss per stage: {run.name}", lines, log=True)


def _lines(title: str, lines: Sequence[tuple[str, Sequence[tuple[int, float]], str]], log: bool) -> str | None:
    if not lines:
        return None
    with style():
        figure = new_figure()
        axes = figure.subplots()
        for name, points, colour in lines:
            marker = "o" if len(points) < 15 else ""
            axes.plot(*zip(*points, strict=True), color=colour, label=name, lw=1.6, marker=marker, ms=3)
        if log and all(v > 0 for _, points, _ in lines for _, v in points):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.legend(frameon=False, fontsize=8)
    ends = ", ".join(f"{name} {points[-1][1]:.3g}" for name, points, _ in lines)
    return svg(figure, f"{title} over epochs. At the end: {ends}.")
