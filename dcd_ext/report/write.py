"""A comparison as files: the page, and its numbers as Markdown and JSON beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcd_ext.io import write_json, write_text
from dcd_ext.report.page import build_page
from dcd_ext.report.runs import Run
from dcd_ext.report.tables import all_tables
from dcd_ext.tables import Table, to_markdown


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
