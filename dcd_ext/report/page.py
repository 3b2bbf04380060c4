"""The report as one HTML file without any external resource, from the template ``page.html``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dcd_ext.report.comparison import HIGHER_IS_BETTER
from dcd_ext.report.details import detail_pictures
from dcd_ext.report.figures import CLASS_COLOURS, RUN_COLOURS
from dcd_ext.report.plots import box_plot, difference_plot, training_plots
from dcd_ext.report.runs import Run
from dcd_ext.report.slices import draw_cases
from dcd_ext.report.statistics import RESAMPLES
from dcd_ext.report.tables import all_tables, metric_title, p_text

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)


def build_page(runs: Sequence[Run], comparison: dict[str, Any], pictures: int, dataset_dir: str | None = None) -> str:
    """The whole page with ``pictures`` cases; ``dataset_dir`` is where the data set is, if it was moved."""
    cases, missing = draw_cases(runs, pictures, dataset_dir) if pictures else ([], "")
    return TEMPLATES.get_template("page.html").render(
        comparison=comparison,
        classes=runs[0].classes,
        run_colours=RUN_COLOURS,
        class_colours=CLASS_COLOURS,
        resamples=RESAMPLES,
        cards=summary_cards(comparison),
        tables=all_tables(comparison),
        box_plots=[box_plot(runs, comparison, m) for m in comparison["metrics"]],
        difference_plots=[difference_plot(runs, comparison, m) for m in comparison["metrics"]],
        training_plots=training_plots(runs),
        cases=cases,
        missing=missing,
        details=detail_pictures(runs),
    )


def summary_cards(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """For every run its mean of the first metric, its difference to the baseline, and what the tests say about it."""
    metric, name = comparison["metrics"][0], comparison["classes"][-1]
    cards = []
    for run, entry in comparison["results"][metric][name].items():
        difference = (entry.get("difference") or {}).get("mean")
        cards.append(
            {
                "run": run,
                "metric": metric_title(comparison, metric),
                "value": "–" if entry["mean"] is None else f"{entry['mean']:.4f}",
                "change": "" if difference is None else f"{difference:+.4f}",
                "text": "The baseline of all differences." if difference is None else _finding(comparison, entry),
            }
        )
    return cards


def _finding(comparison: dict[str, Any], entry: dict[str, Any]) -> str:
    """What the tests say about the difference of one run, in a sentence or two."""
    base, d = comparison["baseline"], entry["difference"]
    interval, text = d["ci95"], f"Difference to {base}."
    if interval is not None:
        clear = (interval[0] > 0 or interval[1] < 0) and (d["wilcoxon_p_holm"] or 0) < 0.05
        better = (d["mean"] > 0) == HIGHER_IS_BETTER[comparison["metrics"][0]]
        words = ("Better than" if better else "Worse than") if clear else "No clear difference to"
        numbers = f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}, Wilcoxon p {p_text(d['wilcoxon_p_holm'])}"
        text = f"{words} {base}: {numbers}."
    if entry.get("gap_recovered") is not None:
        text += f" {100 * entry['gap_recovered']:.0f} % of the gap to {comparison['teacher']}."
    return text
