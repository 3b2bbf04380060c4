"""The tables ``dcd prepare`` ends with: cases, modalities, grids, voxels per class, folds."""

from collections import Counter
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import Case, read_case
from dcd_ext.data.nifti import label_counts, open_image, read_label
from dcd_ext.inference.geometry import grid_of
from dcd_ext.parallel import map_threads
from dcd_ext.tables import Table, to_text


def describe_datalist(content: dict[str, Any], output: Path) -> str:
    """Several lines of text on the headers of all images and on all labels; paths start from the folder ``output``."""
    training, entries = content["training"], [*content["training"], *content["test"]]
    measured = map_threads(_measure, [read_case(entry, output) for entry in entries], "reading")
    folds = Counter(entry["fold"] for entry in training)
    subjects = len({entry["subject"] for entry in entries})
    lines = [
        f"{len(training)} labelled cases, {len(content['test'])} without label, {subjects} subjects",
        "folds: " + (", ".join(f"{k}: {folds[k]}" for k in range(content["folds"])) if folds else "none"),
        *(f"unreadable: {e['case']} ({text})" for e, (_, _, text) in zip(entries, measured, strict=True) if text),
        "",
        to_text(_modality_table(content, [grids for grids, _, _ in measured if grids])),
    ]
    if training:
        lines += ["", to_text(_label_table(content, [counts for _, counts, _ in measured]))]
    return "\n".join(lines)


def _measure(case: Case) -> tuple[list[str], Counter[int], str]:
    """Spacing of each image and voxels per label value of one case; an unreadable file gives its message instead."""
    try:
        zooms = [grid_of(open_image(image)).spacing for image in case.images]
        counts = label_counts(read_label(case.label)) if case.label is not None else {}
        grids = ["×".join(f"{value:.3g}" for value in zoom) + " mm" for zoom in zooms]
        return grids, Counter({int(value): number for value, number in counts.items()}), ""
    # nibabel, gzip and zlib raise a dozen types for a broken file; whichever it is, dcd check names it again
    except Exception as error:
        return [], Counter(), f"{type(error).__name__}: {error}"


def _modality_table(content: dict[str, Any], grids: list[list[str]]) -> Table:
    """One line per modality with the most frequent spacings."""
    rows = []
    for channel, name in content["modality"].items():
        # one file may hold all modalities (4D Decathlon tasks)
        spacings = Counter(grid[min(int(channel), len(grid) - 1)] for grid in grids)
        shown = ", ".join(f"{spacing} ({count})" for spacing, count in spacings.most_common(3))
        rest = len(spacings) - 3
        rows.append([channel, name, shown + (f" and {rest} other spacings" if rest > 0 else "")])
    return Table("", ["channel", "modality", "spacing (cases)"], rows)


def _label_table(content: dict[str, Any], counts: list[Counter[int]]) -> Table:
    """One line per label value: its name, voxels in all cases, cases that contain it."""
    total: Counter[int] = sum(counts, Counter())
    rows = []
    for value in sorted({int(value) for value in content["labels"]} | set(total)):
        name = content["labels"].get(str(value), "UNEXPECTED")
        rows.append([str(value), name, str(total[value]), str(sum(count[value] > 0 for count in counts))])
    return Table("", ["label", "class", "voxels", "cases"], rows)
