"""The report as one HTML file without any external resource."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from dcd_ext.report.comparison import HIGHER_IS_BETTER
from dcd_ext.report.details import detail_section
from dcd_ext.report.figures import CLASS_COLOURS, RUN_COLOURS
from dcd_ext.report.page_style import CSS
from dcd_ext.report.plots import box_plot, difference_plot, training_plots
from dcd_ext.report.runs import Run
from dcd_ext.report.slices import picture_sections
from dcd_ext.report.tables import all_tables, metric_title, p_text
from dcd_ext.tables import to_html

__all__ = ["build_page", "findings"]


def build_page(runs: Sequence[Run], comparison: dict[str, Any], pictures: int, dataset_dir: str | None = None) -> str:
    """The whole page.

    Args:
        runs: the compared runs.
        comparison: from :func:`dcd_ext.report.comparison.compare`.
        pictures: number of cases to draw.
        dataset_dir: where the data set is, if not where it was evaluated.
    """
    tables = {name: "".join(map(to_html, content)) for name, content in all_tables(comparison).items()}
    sections, missing = picture_sections(runs, pictures, dataset_dir) if pictures else ([], "")
    boxes = [box_plot(runs, comparison, m) for m in comparison["metrics"]]
    differences = [difference_plot(runs, comparison, m) for m in comparison["metrics"]]
    details = detail_section(runs)
    parts = [
        ("summary", "Summary", _summary(comparison)),
        ("scores", "Scores", _intro("Mean ± standard error of the mean over cases.") + tables["scores"]),
        ("distribution", "Distribution", _legend(runs) + _grid(boxes)),
        ("differences", "Differences", _tests(comparison) + _grid(differences) + tables["differences"]),
        ("cost", "Cost", tables["cost"]),
        ("training", "Training", _grid(training_plots(runs))),
        ("cases", "Cases", _contours(runs) + "".join(sections) if sections else _intro(missing)),
        ("details", "Detail", _intro(_DETAILS) + details if details else ""),
        ("methods", "How to read this", _methods(comparison)),
    ]
    shown = [(key, title, body) for key, title, body in parts if body]
    links = "".join(f'<a href="#{key}">{html.escape(title)}</a>' for key, title, _ in shown)
    body = "".join(f'<section id="{k}"><h2>{html.escape(t)}</h2>{b}</section>' for k, t, b in shown)
    task = html.escape(str(comparison["task"] or "Comparison"))
    names = html.escape(" · ".join(comparison["runs"]))
    subtitle = f"{len(comparison['cases'])} cases, fold {comparison['fold']} · {names}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{task}: {names}</title><style>{CSS}</style></head><body>"
        f'<header><p class="kicker">Segmentation comparison</p><h1>{task}</h1><p>{subtitle}</p></header>'
        f"<nav>{links}</nav><main>{body}</main></body></html>\n"
    )


_DETAILS = (
    "Root mean square over channels of the detail projection (the six mixed wavelet subbands that distillation "
    "matches) of each encoder stage, central slice of the first case. Each map has its own brightness."
)


def findings(comparison: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Run, difference and what the tests say about the first metric, for every run but the baseline."""
    metric, name = comparison["metrics"][0], comparison["classes"][-1]
    cards = []
    for run, entry in comparison["results"][metric][name].items():
        d = entry.get("difference")
        if d is None or d["mean"] is None:
            continue
        interval, text = d["ci95"], f"Difference to {comparison['baseline']}."
        if interval is not None:
            clear = (interval[0] > 0 or interval[1] < 0) and (d["wilcoxon_p_holm"] or 0) < 0.05
            better = (d["mean"] > 0) == HIGHER_IS_BETTER[metric]
            words = ("Better than" if better else "Worse than") if clear else "No clear difference to"
            numbers = (
                f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}, Wilcoxon p {p_text(d['wilcoxon_p_holm'])}"
            )
            text = f"{words} {comparison['baseline']}: {numbers}."
        if entry.get("gap_recovered") is not None:
            text += f" {100 * entry['gap_recovered']:.0f} % of the gap to {comparison['teacher']}."
        cards.append((run, f"{d['mean']:+.4f}", text))
    return cards


def _summary(comparison: dict[str, Any]) -> str:
    metric, name = comparison["metrics"][0], comparison["classes"][-1]
    colours = dict(zip(comparison["runs"], _cycle(RUN_COLOURS, len(comparison["runs"])), strict=True))
    said = {run: (value, text) for run, value, text in findings(comparison)}
    cards = []
    for run, cost in comparison["runs"].items():
        mean = comparison["results"][metric][name][run]["mean"]
        value = "–" if mean is None else f"{mean:.4f}"
        text = said[run][1] if run in said else "The baseline of all differences."
        change = f'<span class="change">{said[run][0]}</span>' if run in said else ""
        cards.append(
            f'<article style="--run:{colours[run]}"><h3>{html.escape(run)}</h3>'
            f'<p class="value">{value}{change}</p><p class="label">mean {html.escape(metric_title(comparison, metric))}'
            f" · {cost['parameters'] / 1e6:.2f} M parameters</p><p>{html.escape(text)}</p></article>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _cycle(colours: Sequence[str], number: int) -> list[str]:
    return [colours[i % len(colours)] for i in range(number)]


def _legend(runs: Sequence[Run]) -> str:
    pairs = zip(runs, _cycle(RUN_COLOURS, len(runs)), strict=True)
    chips = "".join(f'<span style="--run:{c}">{html.escape(run.name)}</span>' for run, c in pairs)
    return f'<p class="legend">{chips}</p>'


def _contours(runs: Sequence[Run]) -> str:
    classes = runs[0].classes
    pairs = zip(classes, _cycle(CLASS_COLOURS, len(classes)), strict=True)
    chips = "".join(f'<span style="--run:{c}">{html.escape(name)}</span>' for name, c in pairs)
    text = (
        "The cases in which the runs' mean Dice differs most. Solid lines: the mask named below the picture. "
        "Dotted white: the truth. The patient's right is on the left."
    )
    return f'<p class="legend">{chips}</p>{_intro(text)}'


def _grid(plots: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(f"<figure>{plot}</figure>" for plot in plots)}</div>' if plots else ""


def _intro(text: str) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def _tests(comparison: dict[str, Any]) -> str:
    return _intro(
        f"Every case is its own control: run minus {comparison['baseline']} on the same case. p-values are two-sided "
        "and Holm-corrected over the runs. In the plots: a dot per case, mean and 95 % interval in black."
    )


def _methods(comparison: dict[str, Any]) -> str:
    rules = [
        "Every prediction was brought back onto the grid of its label file and compared with the untouched label; "
        "millimetres come from that file.",
        f"Empty masks: {comparison['empty_rule']}.",
        *([f"Lesions: {comparison['lesion_rule']}."] if comparison["lesion_rule"] else []),
        "“Mean of classes” averages the classes of a case first, then the cases.",
        "Intervals: 95 %, bootstrap over cases (BCa, 9999 resamples, seed "
        f"{comparison['seed']}). Tests: paired t-test and Wilcoxon signed-rank test (SciPy).",
        "Gap recovered: (run – baseline) / (teacher – baseline), of the means; given only where the interval of the "
        "teacher's difference shows it to be better.",
        "“Better” and “worse” in the summary: the interval excludes 0 and the Wilcoxon p is below 0.05.",
        "The cases are one validation fold of one training per run: intervals say how the cases vary, not how "
        "trainings with other seeds would.",
    ]
    weights = [f"{n}: {(c['weights_sha256'] or 'not recorded')[:16]}" for n, c in comparison["runs"].items()]
    items = "".join(f"<li>{html.escape(rule)}</li>" for rule in rules)
    return f"<ul>{items}</ul><p class='note'>Weights (SHA-256) – {html.escape('; '.join(weights))}</p>"
