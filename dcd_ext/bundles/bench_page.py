"""What ``scripts/bench_inference.py`` measured, as a table and as a page."""

from __future__ import annotations

import statistics
from typing import Any

from dcd_ext.tables import Table, to_markdown

__all__ = ["inference_page", "inference_table"]

_HEADER = ["network", "run by", "s/volume", "min", "max", "lower by", "peak MiB", "start s", "mean Dice"]


def inference_table(result: dict[str, Any]) -> Table:
    """One row per network and way of running it.

    Args:
        result: what the script writes as JSON.
    """
    rows = []
    for r in result["rows"]:
        lower = "–" if r["lower_percent"] is None else f"{r['lower_percent']:.1f} %"
        dice = "–" if r["dice"] is None else f"{statistics.mean(r['dice']):.4f}"
        peak = "–" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 2**20:.0f}"
        numbers = [f"{r[key]:.4f}" for key in ("seconds", "min", "max")]
        rows.append([r["role"], r["backend"], *numbers, lower, peak, f"{r['start_seconds']:.1f}", dice])
    shape, patch = (" × ".join(map(str, result[key])) for key in ("shape", "patch"))
    threads = result["environment"]["threads"]
    weights = "trained weights" if result["trained"] else "random weights"
    note = (
        f"{result['volumes']} volume(s), the first of {shape} voxels, windows of {patch}; {weights}; median, minimum "
        f"and maximum of {result['repeats']} passes in turns, {threads} thread(s). «lower by»: "
        "against the eager teacher. «peak»: of a process of its own, above what it takes before the network is built."
    )
    return Table(f"{result['teacher']} and {result['student']}", _HEADER, rows, note)


def inference_page(result: dict[str, Any], command: str) -> str:
    """A Markdown page with the table and the command that made it."""
    versions = "\n".join(f"- {name}: {value}" for name, value in result["environment"].items())
    title = f"# Inference on the CPU: {result['task']}"
    return "\n\n".join(
        [title, to_markdown(inference_table(result)), f"Written by\n\n```\n{command}\n```", versions, ""]
    )
