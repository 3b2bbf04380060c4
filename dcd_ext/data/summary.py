"""The table ``prepare_data.py`` ends with: cases, modalities, grids, voxels per class, folds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dcd_ext.data.nifti import label_counts, open_image, voxels
from dcd_ext.data.parallel import map_threads

__all__ = ["describe_datalist", "format_table"]


def format_table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Align rows in columns.

    Args:
        header: column titles.
        rows: one tuple per line, as long as the header.
    """
    lines = [header, *[tuple(str(cell) for cell in row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def _grid(path: Path) -> str:
    """Voxel spacing of a file, as text."""
    return "×".join(f"{value:.3g}" for value in open_image(path).header.get_zooms()[:3]) + " mm"


def _measure(job: tuple[list[Path], Path | None]) -> tuple[list[str], Counter[int], str]:
    """Spacing of each image and voxels per label value of one case; an unreadable file gives its message instead."""
    images, label = job
    try:
        grids = [_grid(image) for image in images]
        counts: Counter[int] = Counter()
        if label is not None:
            counts = Counter({int(value): number for value, number in label_counts(voxels(label)).items()})
        return grids, counts, ""
    # nibabel, gzip and zlib raise a dozen types for a broken file; whichever it is, check_data.py names it again
    except Exception as error:
        return [], Counter(), f"{type(error).__name__}: {error}"


def describe_datalist(content: dict[str, Any], output: Path) -> str:
    """Read the headers of all images and all labels, and summarise them.

    Args:
        content: the data list.
        output: the folder its relative paths start from.

    Returns:
        Several lines of text.
    """
    entries = [*content["training"], *content["test"]]
    jobs: list[tuple[list[Path], Path | None]] = []
    for entry in entries:
        images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
        jobs.append(([output / i for i in images], output / entry["label"] if "label" in entry else None))
    measured = map_threads(_measure, jobs, "reading")
    folds = Counter(entry["fold"] for entry in content["training"])
    subjects = len({entry["subject"] for entry in entries})
    lines = [
        f"{len(content['training'])} labelled cases, {len(content['test'])} without label, {subjects} subjects",
        "folds: " + (", ".join(f"{k}: {folds[k]}" for k in range(content["folds"])) if folds else "none"),
        *(
            f"unreadable: {entry['case']} ({text})"
            for entry, (_, _, text) in zip(entries, measured, strict=True)
            if text
        ),
        "",
        _modality_table(content, [grids for grids, _, _ in measured if grids]),
    ]
    if content["training"]:
        lines += ["", _label_table(content, [counts for _, counts, _ in measured])]
    return "\n".join(lines)


def _modality_table(content: dict[str, Any], grids: list[list[str]]) -> str:
    """One line per modality with the most frequent spacings."""
    rows: list[tuple[object, ...]] = []
    for channel, name in content["modality"].items():
        # one file may hold all modalities (4D Decathlon tasks)
        spacings = Counter(grid[min(int(channel), len(grid) - 1)] for grid in grids)
        shown = ", ".join(f"{spacing} ({count})" for spacing, count in spacings.most_common(3))
        rest = len(spacings) - 3
        rows.append((channel, name, shown + (f" and {rest} other spacings" if rest > 0 else "")))
    return format_table(("channel", "modality", "spacing (cases)"), rows)


def _label_table(content: dict[str, Any], counts: list[Counter[int]]) -> str:
    """One line per label value: its name, voxels in all cases, cases that contain it."""
    total: Counter[int] = sum(counts, Counter())
    values = sorted({int(value) for value in content["labels"]} | set(total))
    rows: list[tuple[object, ...]] = []
    for value in values:
        name = content["labels"].get(str(value), "UNEXPECTED")
        rows.append((value, name, total[value], sum(1 for count in counts if count[value])))
    return format_table(("label", "class", "voxels", "cases"), rows)
