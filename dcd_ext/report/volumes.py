"""Images, labels and predictions of a case, all turned the same way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.data.cases import DATALIST_FILE, load_cases, read_case, read_datalist
from dcd_ext.data.nifti import open_image, read_image, read_label
from dcd_ext.evaluation import prediction_path
from dcd_ext.report.runs import Run


@dataclass
class CaseVolumes:
    """Volumes (X, Y, Z) of one case in RAS orientation."""

    images: dict[str, np.ndarray]  # by modality
    truth: np.ndarray
    predictions: dict[str, np.ndarray]  # by run
    spacing: tuple[float, ...]  # in mm


def case_files(runs: Sequence[Run], dataset_dir: str | None) -> dict[str, dict[str, Any]]:
    """Entries of the data list by case; empty if the data set is not where it was.

    Unless ``dataset_dir`` does, the first run's record says where the data set is. Its training and test parts name
    their cases apart.
    """
    folder = dataset_dir or runs[0].metrics.get("dataset_dir")
    path = Path(folder or "", DATALIST_FILE)
    if not folder or not path.is_file():
        return {}
    content = read_datalist(path)
    entries = [e for part in ("training", "test") if content[part] for e in load_cases(folder, part, "all")]
    return {entry["case"]: entry for entry in entries if "case" in entry}


def load_case(entry: dict[str, Any], runs: Sequence[Run], modalities: Sequence[str]) -> CaseVolumes | None:
    """Read everything that is to be drawn of an entry of the data list; a run without prediction is left out.

    None if the images, the label or all predictions are missing, or differ in shape.
    """
    files = read_case(entry, Path()).images
    saved = {run.name: Path(prediction_path(str(run.path), entry["case"])) for run in runs}
    saved = {name: path for name, path in saved.items() if path.is_file()}
    if not saved or not all(Path(f).is_file() for f in [*files, entry["label"]]):
        return None
    truth, affine = _read(entry["label"], read_label)
    volumes = [_read(file, read_image)[0] for file in files]
    channels = [c for v in volumes for c in ([v] if v.ndim == 3 else np.moveaxis(v, 3, 0))]
    names = [*modalities, *(f"channel {i}" for i in range(len(modalities), len(channels)))]
    predictions = {name: _read(path, read_label)[0] for name, path in saved.items()}
    if any(v.shape != truth.shape for v in (*channels, *predictions.values())):
        return None
    spacing = tuple(float(s) for s in nib.affines.voxel_sizes(affine))
    return CaseVolumes(dict(zip(names, channels, strict=False)), truth, predictions, spacing)


def _read(path: str | Path, reader: Callable[[Path], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    data, affine = reader(Path(path)), open_image(Path(path)).affine
    volume: Any = nib.as_closest_canonical(nib.Nifti1Image(data, affine, dtype=data.dtype))
    return np.asarray(volume.dataobj), volume.affine
