"""Images, labels and predictions of a case, all turned the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.data.cases import load_cases
from dcd_ext.evaluation import prediction_path
from dcd_ext.report.runs import Run


@dataclass
class CaseVolumes:
    """Volumes (X, Y, Z) of one case in RAS orientation.

    Attributes:
        images: modality -> voxels.
        truth: label map.
        predictions: run -> label map.
        spacing: voxel size in mm.
    """

    images: dict[str, np.ndarray]
    truth: np.ndarray
    predictions: dict[str, np.ndarray]
    spacing: tuple[float, ...]


def case_files(runs: Sequence[Run], dataset_dir: str | None) -> dict[str, dict[str, Any]]:
    """Entries of the data list by case; empty if the data set is not where it was.

    Args:
        runs: the compared runs; the first one's record says where the data set was and which fold was scored.
        dataset_dir: where it is now, if it was moved.
    """
    metrics = runs[0].metrics
    folder = dataset_dir or metrics.get("dataset_dir")
    if not folder or not (Path(folder) / "datalist.json").is_file():
        return {}
    entries = load_cases(str(folder), "validation", metrics.get("fold", 0))
    return {entry["case"]: entry for entry in entries}


def load_case(entry: dict[str, Any], runs: Sequence[Run], modalities: Sequence[str]) -> CaseVolumes | None:
    """Read everything that is to be drawn.

    Args:
        entry: the data list's entry of the case.
        runs: runs whose predictions are drawn; a run without one is left out.
        modalities: names in channel order.

    Returns:
        The volumes, or None if the images, the label or all predictions are missing, or differ in shape.
    """
    files = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    saved = {run.name: Path(prediction_path(str(run.path), entry["case"])) for run in runs}
    saved = {name: path for name, path in saved.items() if path.is_file()}
    if not saved or not all(Path(f).is_file() for f in [*files, entry["label"]]):
        return None
    label = _canonical(entry["label"])
    truth = _voxels(label)
    channels = [c for f in files for c in _channels(_voxels(_canonical(f)))]
    names = [*modalities, *(f"channel {i}" for i in range(len(modalities), len(channels)))]
    predictions = {name: _voxels(_canonical(path)) for name, path in saved.items()}
    if any(v.shape != truth.shape for v in (*channels, *predictions.values())):
        return None
    spacing = tuple(float(s) for s in nib.affines.voxel_sizes(label.affine))
    return CaseVolumes(dict(zip(names, channels, strict=False)), truth, predictions, spacing)


def _canonical(path: str | Path) -> Any:
    return nib.as_closest_canonical(nib.load(path))


def _voxels(volume: Any) -> np.ndarray:
    return np.asarray(volume.dataobj)


def _channels(voxels: np.ndarray) -> list[np.ndarray]:
    return [voxels] if voxels.ndim == 3 else [voxels[..., i] for i in range(voxels.shape[3])]
