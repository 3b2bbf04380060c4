"""Detail projections of the runs' encoder features next to each other."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcd_ext.report.figures import image, new_figure
from dcd_ext.report.runs import Run

__all__ = ["detail_section"]

_FILE = "detail_maps.npz"


def detail_section(runs: Sequence[Run]) -> str:
    """A row per run, a column per stage; empty if fewer than two runs have maps of the same case.

    Args:
        runs: the compared runs, each with a ``detail_maps.npz`` or not.
    """
    maps = {run.name: _load(run) for run in runs}
    found = {name: m for name, m in maps.items() if m is not None}
    if len(found) < 2 or len({str(m["case"]) for m in found.values()}) > 1:
        return ""
    first = next(iter(found.values()))
    case, stages = str(first["case"]), sorted(k for k in first if k.startswith("stage_"))
    # below a few voxels a map says nothing
    stages = [s for s in stages if min(first[s].shape) >= 8 and all(s in m for m in found.values())]
    cells = []
    for name, content in found.items():
        cells.append(_cell(content["image"][0], name, "image", f"{case}: central slice of the image", "gray"))
        for stage in stages:
            title = f"stage {stage[6:]}"
            alt = f"{case}, {title}: detail projection of the features of {name}"
            cells.append(_cell(content[stage], name, title, alt, "magma"))
    return (
        f'<p class="note">{html.escape(case)}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="detail maps">'
        f'<div class="slices" style="grid-template-columns:repeat({len(stages) + 1},minmax(9.5rem,15rem))">'
        f"{''.join(cells)}</div></div>"
    )


def _load(run: Run) -> dict[str, Any] | None:
    path = run.path / _FILE
    if not path.is_file():
        return None
    with np.load(path) as content:
        return dict(content)


def _cell(picture: np.ndarray, name: str, title: str, alt: str, colours: str) -> str:
    # as the slices of the cases: rows upwards, the patient's right on the left
    turned = picture[::-1].T
    figure = new_figure(2.4, 2.4 * turned.shape[0] / turned.shape[1])
    figure.set_layout_engine("none")
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    low, high = (0, np.percentile(turned, 99.5)) if colours != "gray" else np.percentile(turned, (1, 99.5))
    axes.imshow(turned, cmap=colours, origin="lower", vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    caption = f"{html.escape(name)}<small>{html.escape(title)}</small>"
    return f"<figure>{image(figure, alt, dpi=110)}<figcaption>{caption}</figcaption></figure>"
