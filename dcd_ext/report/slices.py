"""Pictures of the cases in which the runs differ most."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dcd_ext.report.comparison import score
from dcd_ext.report.figures import CLASS_COLOURS, Pictures, image, picture_axes
from dcd_ext.report.runs import Run
from dcd_ext.report.volumes import CaseVolumes, case_files, load_case

_MARGIN_MM, _SMALLEST_MM = 15.0, 60.0
# characters of pictures after which no further case is drawn: the page should fit into a mail
_ENOUGH = 5_000_000


def most_different(runs: Sequence[Run], number: int) -> list[str]:
    """Cases with the largest spread of the mean Dice over the runs, largest first."""
    spread = {}
    for case in runs[0].cases:
        values = [v for v in (score(run, case, "mean", "dice") for run in runs) if v is not None]
        if values:
            spread[case] = max(values) - min(values)
    return sorted(spread, key=lambda case: (-spread[case], case))[:number]


def draw_cases(runs: Sequence[Run], number: int, dataset_dir: str | None = None) -> tuple[list[Pictures], str]:
    """Pictures of the most different cases, fewer if the page would become too large, and what is missing."""
    entries = case_files(runs, dataset_dir)
    if not entries:
        return [], "No pictures: the data set is not where it was evaluated; give its folder with --dataset_dir."
    modalities = runs[0].metrics.get("modalities", [])
    drawn: list[Pictures] = []
    for case in most_different(runs, number):
        volumes = load_case(entries[case], runs, modalities) if case in entries else None
        if volumes is not None:
            drawn.append(_draw_case(case, runs, volumes))
            if sum(len(cell["image"]) for pictures in drawn for cell in pictures.cells) > _ENOUGH:
                break
    return drawn, "" if drawn else "No pictures: images, labels or saved predictions are missing."


def _draw_case(case: str, runs: Sequence[Run], volumes: CaseVolumes) -> Pictures:
    """One case: a row per modality, truth and every run beside each other."""
    plane, index = choose_plane(volumes)
    box = crop_around(volumes, plane, index)
    sides = [s for axis, s in enumerate(volumes.spacing) if axis != plane]
    columns = {"truth": None, **{run.name: run for run in runs if run.name in volumes.predictions}}
    orientation, count = ("Sagittal", "Coronal", "Axial")[plane], volumes.truth.shape[plane]
    note = f"{orientation} slice {index} of {count}, where predictions and truth disagree most."
    pictures = Pictures(case, note, len(columns))
    for modality, voxels in volumes.images.items():
        picture = cut_slice(voxels, plane, index, box)
        truth = cut_slice(volumes.truth, plane, index, box)
        for name, run in columns.items():
            dice = None if run is None else score(run, case, "mean", "dice")
            value = "" if run is None else f", Dice {dice:.3f}" if dice is not None else ", Dice not defined"
            mask = truth if run is None else cut_slice(volumes.predictions[name], plane, index, box)
            alt = f"{case}, {modality}: contours of {name}{value}"
            drawn = draw_contours(picture, mask, None if run is None else truth, sides)
            pictures.add(image(drawn, alt, dpi=125), name, f"{modality}{value}")
    return pictures


def choose_plane(volumes: CaseVolumes) -> tuple[int, int]:
    """Axis and index of the slice to show: across the thickest voxels, else axial; where most voxels are wrong."""
    spacing = volumes.spacing
    thickest = int(np.argmax(spacing))
    plane = thickest if spacing[thickest] > 1.5 * sorted(spacing)[1] else 2
    others = tuple(axis for axis in range(3) if axis != plane)
    wrong = sum((p != volumes.truth).sum(axis=others) for p in volumes.predictions.values())
    inside = (volumes.truth > 0).sum(axis=others)
    # with nothing wrong, the middle of the truth
    weight = wrong if np.any(wrong) else inside
    return plane, int(np.argmax(weight))


def crop_around(volumes: CaseVolumes, plane: int, index: int) -> tuple[slice, slice]:
    """Rows and columns around all masks of the slice, with a margin and no less than a few centimetres."""
    masks = [volumes.truth, *volumes.predictions.values()]
    union = np.any([np.take(m, index, axis=plane) > 0 for m in masks], axis=0)
    if not union.any():
        return slice(None), slice(None)
    sides = [s for axis, s in enumerate(volumes.spacing) if axis != plane]
    box = []
    for axis, side in enumerate(sides):
        where = np.flatnonzero(union.any(axis=1 - axis))
        low, high = int(where[0]), int(where[-1]) + 1
        margin = max(_MARGIN_MM / side, (_SMALLEST_MM / side - (high - low)) / 2)
        box.append(slice(max(round(low - margin), 0), min(round(high + margin), union.shape[axis])))
    return box[0], box[1]


def cut_slice(voxels: np.ndarray, plane: int, index: int, box: tuple[slice, slice]) -> np.ndarray:
    """Part of a slice, rows upwards and the patient's right on the left, as radiologists look at it."""
    part = np.take(voxels, index, axis=plane)[box]
    return (part if plane == 0 else part[::-1]).T


def draw_contours(picture: np.ndarray, mask: np.ndarray, truth: np.ndarray | None, sides: Sequence[float]) -> Figure:
    """A slice with the outlines of the mask's classes, and dotted in white those of the truth."""
    height, width = picture.shape[0] * sides[1], picture.shape[1] * sides[0]
    figure, axes = picture_axes(min(max(height / width, 0.5), 1.8))
    figure.set_facecolor("black")
    low, high = np.percentile(picture, (1, 99.5))
    options: dict[str, Any] = {"cmap": "gray", "origin": "lower", "interpolation": "bilinear"}
    axes.imshow(picture, vmin=low, vmax=max(high, low + 1e-6), aspect=sides[1] / sides[0], **options)
    for value in range(1, int(max(mask.max(), 0 if truth is None else truth.max())) + 1):
        colour = CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]
        _contour(axes, mask == value, colors=[colour], linewidths=1.6)
        if truth is not None:
            _contour(axes, truth == value, colors=["white"], linewidths=1.1, linestyles="dotted")
    axes.set_xlim(-0.5, picture.shape[1] - 0.5)
    axes.set_ylim(-0.5, picture.shape[0] - 0.5)
    return figure


def _contour(axes: Any, mask: np.ndarray, **look: Any) -> None:
    if mask.any():
        # a border of zeros closes a contour at the edge of the picture
        extent = (-1, mask.shape[1], -1, mask.shape[0])
        axes.contour(np.pad(mask.astype(float), 1), [0.5], extent=extent, **look)
