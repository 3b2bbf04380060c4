"""Detail projections of the runs' encoder features, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcd_ext.report.figures import Pictures, image, picture_axes
from dcd_ext.report.runs import Run

_FILE = "detail_maps.npz"


def detail_pictures(runs: Sequence[Run]) -> Pictures | None:
    """A row per run, a column per stage; None if fewer than two runs have a ``detail_maps.npz`` of the same case."""
    found = {run.name: _load(run) for run in runs if (run.path / _FILE).is_file()}
    if len(found) < 2 or len({str(maps["case"]) for maps in found.values()}) > 1:
        return None
    first = next(iter(found.values()))
    case, stages = str(first["case"]), sorted(k for k in first if k.startswith("stage_"))
    # below a few voxels a map says nothing
    stages = [s for s in stages if min(first[s].shape) >= 8 and all(s in m for m in found.values())]
    pictures = Pictures(case, "", len(stages) + 1)
    for name, maps in found.items():
        alt = f"{case}: central slice of the image"
        pictures.add(_draw(maps["image"][0], alt, "gray"), name, "image")
        for stage in stages:
            title = f"stage {stage[6:]}"
            alt = f"{case}, {title}: detail projection of the features of {name}"
            pictures.add(_draw(maps[stage], alt, "magma"), name, title)
    return pictures


def _load(run: Run) -> dict[str, Any]:
    with np.load(run.path / _FILE) as content:
        return dict(content)


def _draw(voxels: np.ndarray, alt: str, colours: str) -> str:
    # as the slices of the cases: rows upwards, the patient's right on the left
    turned = voxels[::-1].T
    figure, axes = picture_axes(turned.shape[0] / turned.shape[1])
    low, high = (0, np.percentile(turned, 99.5)) if colours != "gray" else np.percentile(turned, (1, 99.5))
    axes.imshow(turned, cmap=colours, origin="lower", vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    return image(figure, alt, dpi=110)
