"""Ways to break a small prepared BraTS data set, and what the check should say about each.

Every function changes files or entries of ``Broken`` in place. ``SILENT`` ones are harmless and must give no finding.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

__all__ = ["FAULTS", "SILENT", "Broken"]


@dataclass
class Broken:
    """A data set to break.

    Attributes:
        root: folder of ``datalist.json``.
    """

    root: Path

    def files(self, case: int = 0) -> tuple[list[Path], Path]:
        """Images and label of a training case."""
        entry = self.load()["training"][case]
        return [self.root / name for name in entry["image"]], self.root / entry["label"]

    def load(self) -> dict[str, Any]:
        """The data list."""
        return json.loads((self.root / "datalist.json").read_text())

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the data list."""
        content = self.load()
        change(content)
        (self.root / "datalist.json").write_text(json.dumps(content))

    def rewrite(self, file: Path, change: Callable[[np.ndarray], np.ndarray] = np.asarray, affine: Any = None) -> None:
        """Write a file again with other voxels, another affine, or both."""
        image = nib.load(file)
        data = change(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(data, image.affine if affine is None else affine, dtype=data.dtype), file)

    def every_affine(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Give all files of case 0 another affine."""
        images, label = self.files()
        for file in (*images, label):
            self.rewrite(file, affine=change(nib.load(file).affine))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _put(value: float, dtype: Any = np.float32) -> Callable[[np.ndarray], np.ndarray]:
    def change(data: np.ndarray) -> np.ndarray:
        data = data.astype(dtype)
        data[10:12, 10, 10] = value
        return data

    return change


def _shifted(affine: np.ndarray, millimetres: float) -> np.ndarray:
    moved = affine.copy()
    moved[0, 3] += millimetres
    return moved


def _turned(affine: np.ndarray, angle: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


def _as_ras(b: Broken) -> None:
    """The label stored in RAS: the same place, another order of voxels."""
    _, label = b.files()
    image = nib.as_closest_canonical(nib.load(label))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), label)


def _left_handed_label(b: Broken) -> None:
    _, label = b.files()
    affine = nib.load(label).affine.copy()
    affine[0] *= -1
    b.rewrite(label, affine=affine)


def _copy_modality(b: Broken) -> None:
    images, _ = b.files()
    shutil.copy(images[0], images[1])


def _copy_case(b: Broken) -> None:
    for source, target in zip(b.files(0)[0], b.files(4)[0], strict=True):
        shutil.copy(source, target)


def _relabel(b: Broken, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for case in range(len(b.load()["training"])):
        b.rewrite(b.files(case)[1], change)


def _structured(b: Broken) -> None:
    file = b.files()[0][0]
    shape = nib.load(file).shape
    rgb = np.zeros(shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(rgb, nib.load(file).affine), file)


def _third_row(file: Path, value: float) -> None:
    """Overwrite the third row of the sform, at byte 312 of a NIfTI-1 header; nibabel would refuse to write it."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[312:328] = struct.pack("<4f", value, value, value, value)
    file.write_bytes(gzip.compress(bytes(content)))


def _cifti(b: Broken) -> None:
    """In place of an image values on 27 voxels of the brain, in a file whose name is that of a volume."""
    file = b.files()[0][1].with_name("values.nii")
    where = nib.cifti2.BrainModelAxis.from_mask(np.ones((3, 3, 3)), affine=np.eye(4))
    nib.save(nib.Cifti2Image(np.ones((1, 27), np.float32), (nib.cifti2.ScalarAxis(["thickness"]), where)), file)
    b.edit(lambda c: c["training"][0]["image"].__setitem__(1, str(file.relative_to(b.root))))


def _scaled(file: Path) -> None:
    """The mask as 0 to 28000 with a ``scl_slope``, so that no value is exactly whole."""
    image = nib.load(file)
    stored = nib.Nifti1Image(np.asarray(image.dataobj) * np.int16(7000), image.affine)
    nib.save(stored, file)
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[112:116] = struct.pack("<f", 1 / 7000)
    file.write_bytes(gzip.compress(bytes(content)))
    assert set(np.asarray(nib.load(file).dataobj).ravel() % 1) != {0}


def _pixdim(file: Path, value: float) -> None:
    """Overwrite the voxel sizes of a NIfTI-1 header, at byte 80; the sform keeps its own."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[80:92] = struct.pack("<3f", value, value, value)
    content[252:254] = struct.pack("<h", 0)  # no qform, whose voxel sizes these are
    file.write_bytes(gzip.compress(bytes(content)))


def _codes(b: Broken, qform: Any, code: int) -> None:
    file = b.files()[0][0]
    image = nib.load(file)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.set_sform(image.affine, code)
    image.set_qform(qform(image.affine), code)
    nib.save(image, file)


def _old_numbers(data: np.ndarray) -> np.ndarray:
    return np.array([0, 1, 2, 4, 0], np.uint8)[data]


# name -> (what to do, severity, check, part of the message)
FAULTS: dict[str, tuple[Callable[[Broken], object], str, str, str]] = {
    "truncated image": (lambda b: _cut(b.files()[0][2]), "error", "readable", "unreadable file"),
    "truncated label": (lambda b: _cut(b.files()[1]), "error", "readable", "unreadable file"),
    "text instead of gzip": (lambda b: b.files()[0][0].write_text("404"), "error", "readable", "unreadable file"),
    "empty file": (lambda b: b.files()[0][0].write_bytes(b""), "error", "readable", "unreadable file"),
    "gzip of nothing": (lambda b: b.files()[1].write_bytes(gzip.compress(b"")), "error", "readable", "unreadable"),
    "no volume": (_cifti, "error", "readable", "Cifti2Image is no volume"),
    "missing file": (lambda b: b.files()[0][3].unlink(), "error", "readable", "missing file"),
    "shape": (lambda b: b.rewrite(b.files()[1], lambda d: d[:-1]), "error", "shape", "32×32×28, found 31×32×28"),
    "spacing": (
        lambda b: b.rewrite(b.files()[1], affine=nib.load(b.files()[1]).affine @ np.diag([1, 1, 1.2, 1])),
        "error",
        "spacing",
        "1×1×1 mm, found 1×1×1.2 mm",
    ),
    "LPS image, RAS label": (_as_ras, "error", "orientation", "LPS, found RAS"),
    "left-handed label": (_left_handed_label, "error", "orientation", "LPS, found RPS"),
    "label 5 mm away": (
        lambda b: b.rewrite(b.files()[1], affine=_shifted(nib.load(b.files()[1]).affine, 5)),
        "error",
        "affine",
        "0.1 mm at the farthest corner, found 5 mm",
    ),
    "image turned by one degree": (
        lambda b: b.rewrite(b.files()[0][2], affine=_turned(nib.load(b.files()[0][2]).affine, np.pi / 180)),
        "error",
        "affine",
        "affine differs within the case",
    ),
    "NaN affine": (
        lambda b: _third_row(b.files()[0][1], np.nan),
        "error",
        "affine",
        "unusable affine",
    ),
    "flat affine": (lambda b: _third_row(b.files()[1], 0), "error", "affine", "unusable"),
    "sform without pixdim": (
        lambda b: _pixdim(b.files()[0][2], 1.5),
        "warning",
        "affine",
        "1×1×1 mm, found pixdim 1.5",
    ),
    "qform elsewhere": (
        lambda b: _codes(b, lambda a: _shifted(a, 7), 1),
        "warning",
        "affine",
        "qform and sform disagree",
    ),
    "no codes": (lambda b: _codes(b, np.asarray, 0), "warning", "affine", "no position in the header"),
    "a modality twice": (_copy_modality, "error", "modality", "the same image for two modalities"),
    "three modalities": (
        lambda b: b.edit(lambda c: c["training"][0]["image"].pop()),
        "error",
        "modality",
        "4 images (t1n, t1c, t2w, t2f), found 3",
    ),
    "one path twice": (
        lambda b: b.edit(lambda c: c["training"][0]["image"].__setitem__(1, c["training"][0]["image"][0])),
        "error",
        "modality",
        "one file for two modalities",
    ),
    "4D": (lambda b: b.rewrite(b.files()[0][0], lambda d: np.stack([d, d], -1)), "error", "dimensions", "4D input"),
    "2D": (lambda b: b.rewrite(b.files()[0][0], lambda d: d[..., 3]), "error", "dimensions", "2D input"),
    "NaN": (lambda b: b.rewrite(b.files()[0][0], _put(np.nan)), "warning", "finite", "read as 0"),
    "NaN around a constant": (
        lambda b: b.rewrite(b.files()[0][1], lambda d: np.where(d > 0, np.nan, np.float32(0))),
        "error",
        "constant",
        "found 0.0 everywhere",
    ),
    "infinity": (lambda b: b.rewrite(b.files()[0][3], _put(np.inf)), "error", "finite", "finite voxels, found 2"),
    "NaN in the mask": (lambda b: b.rewrite(b.files()[1], _put(np.nan)), "error", "finite", "in a mask"),
    "constant": (lambda b: b.rewrite(b.files()[0][0], np.zeros_like), "error", "constant", "found 0 everywhere"),
    "interpolated mask": (lambda b: b.rewrite(b.files()[1], _put(1.5)), "error", "integers", "found 1.5"),
    "unknown value": (lambda b: b.rewrite(b.files()[1], _put(7, np.uint8)), "error", "labels", "found 7"),
    "negative value": (lambda b: b.rewrite(b.files()[1], _put(-1, np.int16)), "error", "labels", "found -1"),
    "0/255 mask": (
        lambda b: b.rewrite(b.files()[1], lambda d: (255 * (d > 0)).astype(np.uint8)),
        "error",
        "labels",
        "divide it by 255",
    ),
    "older BraTS numbers": (lambda b: _relabel(b, _old_numbers), "error", "labels", "BraTS ≤ 2023): ET = 4"),
    "class absent": (
        lambda b: _relabel(b, lambda d: np.where(d == 1, 0, d)),
        "error",
        "classes",
        "class NETC is absent",
    ),
    "empty mask": (lambda b: b.rewrite(b.files()[1], np.zeros_like), "warning", "empty", "empty mask"),
    "complex voxels": (lambda b: b.rewrite(b.files()[0][0], lambda d: d + 1j), "error", "dtype", "complex"),
    "colour voxels": (_structured, "error", "dtype", "wrong voxel type"),
    "case listed twice": (
        lambda b: b.edit(lambda c: c["training"].append(c["training"][0])),
        "error",
        "duplicate",
        "duplicate case",
    ),
    "copy under another name": (_copy_case, "error", "duplicate", "the same voxels in two cases"),
    "test case is a training case": (
        lambda b: b.edit(lambda c: c["test"][0].update(image=c["training"][0]["image"])),
        "error",
        "duplicate",
        "one file in two cases",
    ),
    "subject split": (
        lambda b: b.edit(lambda c: c["training"][1].update(subject=c["training"][0]["subject"])),
        "error",
        "folds",
        "a subject in two folds",
    ),
    "no such fold": (lambda b: b.edit(lambda c: c["training"][0].update(fold=9)), "error", "folds", "found 9"),
    "training without label": (
        lambda b: b.edit(lambda c: c["training"][0].pop("label")),
        "error",
        "datalist",
        "found no label",
    ),
    "key that breaks Spacingd": (
        lambda b: b.edit(lambda c: c["training"][0].update(image_site="x")),
        "error",
        "datalist",
        "image_site",
    ),
}

SILENT: dict[str, Callable[[Broken], object]] = {
    "nothing": lambda b: None,
    "direction rounded by 1e-8": lambda b: b.rewrite(b.files()[1], affine=nib.load(b.files()[1]).affine + 1e-8),
    "label 0.05 mm away": lambda b: b.rewrite(b.files()[1], affine=_shifted(nib.load(b.files()[1]).affine, 0.05)),
    "whole case left-handed": lambda b: b.every_affine(lambda a: np.diag([-1, 1, 1, 1]) @ a),
    "whole case RAS": lambda b: b.every_affine(lambda a: np.eye(4)),
    "whole case oblique and anisotropic": lambda b: b.every_affine(lambda a: _turned(a, 0.3) @ np.diag([1, 0.5, 3, 1])),
    "mask as float64": lambda b: b.rewrite(b.files()[1], lambda d: d.astype(np.float64)),
    "mask as int16": lambda b: b.rewrite(b.files()[1], lambda d: d.astype(np.int16)),
    "4D with one volume": lambda b: [b.rewrite(f, lambda d: d[..., None]) for f in (b.files()[0][2], b.files()[1])],
    "mask as scaled int16": lambda b: _scaled(b.files()[1]),
    "mask of 0.9999": lambda b: b.rewrite(b.files()[1], lambda d: np.where(d > 0, d - np.float32(1e-4), 0)),
    "mask off by rounding": lambda b: b.rewrite(b.files()[1], lambda d: d + np.float64(1e-5)),
    "image as float64": lambda b: b.rewrite(b.files()[0][0], lambda d: d.astype(np.float64)),
    "negative intensities": lambda b: b.rewrite(b.files()[0][0], lambda d: d - np.int16(100)),
}
