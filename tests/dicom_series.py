"""Write DICOM series with ITK, where the real study is not at hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import itk
import numpy as np

# as in the real study
DESCRIPTIONS = {"t1n": "T1pre_reg", "t1c": "T1post", "t2w": "T2_reg", "t2f": "FLAIR_reg"}
SHAPE, SPACING, ORIGIN = (96, 80, 22), (2.0, 2.5, 5.0), (-90.0, -110.0, -40.0)
_ROOT = "1.2.826.0.1.3680043.10.1"  # any root will do: nothing leaves the test


def oblique_direction() -> np.ndarray:
    """Direction cosines of slices tilted by 0.2 rad, as columns."""
    c, s = np.cos(0.2), np.sin(0.2)
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def write_series(folder: Path, volume: np.ndarray, description: str, number: int) -> Path:
    """One file per slice, all in one study.

    Args:
        folder: receives the files.
        volume: voxels (X, Y, Z), int16; X along the rows' pixels.
        description: of the series.
        number: of the series; makes its UID, too.
    """
    folder.mkdir(parents=True)
    direction = oblique_direction()
    common = {
        **{"0008|0060": "MR", "0008|0008": "ORIGINAL\\PRIMARY\\OTHER", "0008|0020": "20200102", "0008|0030": "101112"},
        **{
            "0008|0021": "20200102",
            "0008|0031": "101112",
            "0008|0050": "1",
            "0008|0070": "none",
            "0008|103e": description,
        },
        **{"0010|0010": "Phantom^One", "0010|0020": "P1", "0010|0030": "19500101", "0010|0040": "O"},
        **{"0018|0050": str(SPACING[2]), "0018|0088": str(SPACING[2]), "0020|000d": f"{_ROOT}.1", "0020|0010": "1"},
        **{"0020|000e": f"{_ROOT}.1.{number}", "0020|0011": str(number), "0020|0052": f"{_ROOT}.2"},
    }
    io = itk.GDCMImageIO.New()
    io.KeepOriginalUIDOn()
    for z in range(volume.shape[2]):
        image = itk.image_from_array(np.ascontiguousarray(volume[:, :, z : z + 1].T))
        image.SetSpacing(list(SPACING))
        image.SetDirection(direction)
        image.SetOrigin(list(np.array(ORIGIN) + direction[:, 2] * SPACING[2] * z))
        entries = image.GetMetaDataDictionary()
        for tag, value in {**common, "0008|0018": f"{_ROOT}.1.{number}.{z + 1}", "0020|0013": str(z + 1)}.items():
            entries[tag] = value
        image.SetMetaDataDictionary(entries)
        itk.imwrite(image, str(folder / f"{z + 1:06d}.dcm"), imageio=io)
    return folder


def write_study(folder: Path) -> Path:
    """Four series on one oblique grid: a bright ellipsoid with spots, another contrast in each series."""
    with warnings.catch_warnings():
        # SWIG's types have no module, of which Python warns while ITK loads; as an error it would end the process
        warnings.simplefilter("ignore", DeprecationWarning)
        return _write_study(folder)


def _write_study(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    head = np.square(grid).sum(0) < 0.8
    spots = [np.square(grid - rng.uniform(-0.5, 0.5, (3, 1, 1, 1))).sum(0) < 0.03 for _ in range(4)]
    for number, (name, description) in enumerate(DESCRIPTIONS.items(), start=1):
        volume = 300 * head + sum(rng.integers(-200, 600) * spot for spot in spots) * head
        volume = (volume + 20 * rng.standard_normal(SHAPE) * head).clip(0, 2000)
        write_series(folder / name, volume.astype(np.int16), description, number)
    return folder
