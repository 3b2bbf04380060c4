"""The report as one HTML file without any external resource, from the template ``page.html``, and as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dcd_ext.evaluation import METRICS
from dcd_ext.io import write_json, write_text
from dcd_ext.report.details import detail_pictures
from dcd_ext.report.figures import CLASS_COLOURS, RUN_COLOURS
from dcd_ext.report.plots import box_plot, difference_plot, training_plots
from dcd_ext.report.runs import Run
from dcd_ext.report.slices import draw_cases
from dcd_ext.report.statistics import RESAMPLES
from dcd_ext.report.tables import all_tables, metric_title, p_text
from dcd_ext.tables import Table, to_markdown

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


def write_report(
    runs: Sequence[Run], comparison: dict[str, Any], output: Path, pictures: int = 3, dataset_dir: str | None = None
) -> list[Table]:
    """Write ``output`` (HTML), and ``.md`` and ``.json`` of the same name; returns the tables."""
    page = build_page(runs, comparison, pictures, dataset_dir)
    tables = [table for group in all_tables(comparison).values() for table in group]
    title = f"# {comparison['task'] or 'Comparison'}: {', '.join(comparison['runs'])}"
    spread = "standard deviation over trainings" if comparison["several_trainings"] else "SEM"
    about = f"{len(comparison['cases'])} cases, {comparison['part']}; mean ± {spread}."
    write_text(page, output)
    write_text("\n\n".join([title, about, *map(to_markdown, tables)]) + "\n", output.with_suffix(".md"))
    write_json(comparison, output.with_suffix(".json"))
    return tables


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
        test, p = ("Wilcoxon", d["wilcoxon_p_holm"])
        if comparison["several_trainings"]:
            test, p = "trainings and cases,", d["trainings_p_holm"]
        clear = (interval[0] > 0 or interval[1] < 0) and (p or 0) < 0.05
        better = (d["mean"] > 0) == METRICS[comparison["metrics"][0]].higher_is_better
        words = ("Better than" if better else "Worse than") if clear else "No clear difference to"
        numbers = f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}, {test} p {p_text(p)}"
        text = f"{words} {base}: {numbers}."
    elif comparison["several_trainings"]:
        text = f"Difference to {base}: too few trainings for a test."
    if entry.get("gap_recovered") is not None:
        text += f" {100 * entry['gap_recovered']:.0f} % of the gap to {comparison['teacher']}."
    return text
