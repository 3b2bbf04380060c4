"""Segment whole images with numpy, scipy, nibabel and one inference engine: no torch, no MONAI.

This one file is what ``dcd export --formats standalone`` puts beside an exported network, and what ``dcd predict`` runs
with its fast backends. ``pipeline.json`` lists the steps of the bundle's own preprocessing and its sliding window; each
step does what MONAI's transform of the same purpose does, and knows its inverse.

    python predict.py IMAGE [IMAGE ...] --output FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import logging
import math
import os
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

logger = logging.getLogger(__name__)
_TOLERANCE = 1e-3  # MONAI's for a spacing that is as wanted
_TOLERANCE_MM = 0.1  # how far the files of a case may lie apart
# voxels that are brought back to the image's grid at once: 4 MiB of float32 for each class
_BLOCK = 2**20
# voxels of a window that takes less time and memory than to compile the network again for another number of windows
_SMALL = 2**18
SUFFIXES = (".nii.gz", ".nii", ".img", ".mgz", ".mgh")


class PredictError(ValueError):
    """An image that cannot be segmented, in one line."""


@dataclass
class Volume:
    """An image, channels first (M, X, Y, Z) in float32, and the affine of its voxels in millimetres (RAS)."""

    data: np.ndarray
    affine: np.ndarray
    shape: tuple[int, ...] = ()  # of a label map of its file, which may have further axes of length 1


def read(files: Sequence[Path]) -> Volume:
    """One file per channel, or one file whose fourth axis is the channel.

    Raises:
        PredictError: if a file cannot be read, has infinite voxels, or another grid than the first.
    """
    images = [_open(file) for file in files]
    shapes = [_shape(image, file) for image, file in zip(images, files, strict=True)]
    for image, shape, file in zip(images, shapes, files, strict=True):
        if shape[:3] != shapes[0][:3] or _apart_mm(image.affine, images[0].affine, shape) > _TOLERANCE_MM:
            found = f"expected that of {files[0]}, at most {_TOLERANCE_MM:g} mm apart"
            raise PredictError(f"files of a case lie on different grids – {file} – {found}")
    counts = [shape[3] for shape in shapes]
    # in the order of the files, where the first axis runs fastest; each file's channels are a view
    data = np.empty((sum(counts), *shapes[0][2::-1]), np.float32).transpose(0, 3, 2, 1)
    with ThreadPoolExecutor(cores()) as pool:  # unzipping leaves Python's lock
        for _ in pool.map(_fill, np.split(data, np.cumsum(counts)[:-1]), images, files):
            pass
    return Volume(data, images[0].affine, images[0].shape if counts[0] == 1 else shapes[0][:3])


def _apart_mm(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Largest distance between the places that two affines give to a voxel of a volume: at one of the corners."""
    return float(np.linalg.norm(((one - other) @ _corners(shape))[:3], axis=0).max())


def _corners(shape: Sequence[int]) -> np.ndarray:
    """Homogeneous coordinates (4, 8) of the corner voxels of a volume."""
    corners = itertools.product(*((0.0, n - 1.0) for n in shape[:3]))
    return np.array([*zip(*corners, strict=True), [1.0] * 8])


def _open(file: Path) -> Any:
    """An image whose header has been read."""
    try:
        image: Any = nib.load(file)
    except Exception as error:
        raise PredictError(f"cannot read – {file} – {one_line(error)}") from error
    kind = image.get_data_dtype()
    if kind.kind not in "biuf":
        raise PredictError(f"no plain numbers – {file} – expected one real number per voxel, found {kind}")
    axes = image.affine[:3, :3]
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(axes) < 3:
        raise PredictError(f"axes that span no space – {file} – expected three, found {axes.tolist()}")
    return image


def _shape(image: Any, file: Path) -> tuple[int, ...]:
    """(X, Y, Z, M) of a volume with or without channels, and with any number of further axes of length 1."""
    shape = tuple(image.shape)
    sides = (*shape, 1)[:4]
    if len(shape) < 3 or math.prod(shape) != math.prod(sides) or min(shape) < 1:
        raise PredictError(f"not a volume – {file} – expected three axes, found shape {shape}")
    return sides


def _fill(part: np.ndarray, image: Any, file: Path) -> None:
    """Read the voxels of a file into its channels (M, X, Y, Z), with no copy in another type than the file's."""
    try:
        if file.name.lower().endswith((".gz", ".mgz")):
            # nibabel stops before the checksum at the end: one changed bit would pass
            image = type(image).from_bytes(gzip.decompress(file.read_bytes()))
        proxy = image.dataobj
        plain = (proxy.slope, proxy.inter) == (1, 0)
        stored = proxy.get_unscaled() if plain else np.asarray(proxy, np.float32)
        part[...] = np.moveaxis(stored.reshape((*part.shape[1:], len(part)), order="F"), -1, 0)
    except Exception as error:  # nibabel raises whatever a damaged file provokes
        raise PredictError(f"cannot read – {file} – {one_line(error)}") from error
    cleaned = finite(part, file)
    if cleaned is not part:
        part[...] = cleaned


def finite(data: np.ndarray, file: Path) -> np.ndarray:
    """NaN, which some programs write as background, becomes 0; infinite voxels are refused, equal ones logged."""
    if data.min() == data.max():
        logger.warning("constant image – %s – all voxels are %g", file, data.min())
    if np.isfinite(data.sum(dtype=np.float64)):  # one pass without a mask; a sum of float32 is finite in float64
        return data
    if np.isinf(data).any():
        raise PredictError(f"infinite intensities – {file} – expected finite numbers – repair the file")
    logger.warning("NaN is read as 0 – %s", file)
    return np.where(np.isnan(data), np.float32(0), data)


class Orient:
    """Reorder and flip axes to ``axcodes``, such as "RAS"."""

    resamples = False

    def __init__(self, axcodes: str) -> None:
        self.axcodes = axcodes

    def __call__(self, volume: Volume) -> Volume:
        found = nib.orientations.io_orientation(volume.affine)
        wanted = nib.orientations.axcodes2ornt(tuple(self.axcodes))
        change = nib.orientations.ornt_transform(found, wanted)
        self._order = [int(np.flatnonzero(change[:, 0] == axis)[0]) for axis in range(3)]
        self._flips: Any = (..., *(slice(None, None, int(change[source, 1])) for source in self._order))
        affine = volume.affine @ nib.orientations.inv_ornt_aff(change, volume.data.shape[1:])
        return Volume(volume.data.transpose(0, *(1 + axis for axis in self._order))[self._flips], affine)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Scores (C, X, Y, Z) or labels (X, Y, Z) on the grid before the step."""
        lead = range(values.ndim - 3)
        return values[self._flips].transpose(*lead, *(len(lead) + axis for axis in np.argsort(self._order)))


class CropForeground:
    """Cut to the box of voxels that are above 0 in any channel."""

    resamples = False

    def __call__(self, volume: Volume) -> Volume:
        foreground: Any = (volume.data > 0).any(axis=0)
        self._shape = foreground.shape
        hits = [np.flatnonzero(np.any(foreground, axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        # without foreground the whole image, as MONAI
        pairs = zip(hits, self._shape, strict=True)
        sides = [(int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, n) for hit, n in pairs]
        self._box: Any = (..., *(slice(*side) for side in sides))
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [start for start, _ in sides]
        return Volume(volume.data[self._box], affine)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Scores or labels on the grid before the step, 0 outside the box."""
        whole = np.zeros((*values.shape[:-3], *self._shape), values.dtype)
        whole[self._box] = values
        return whole


class Spacing:
    """Resample linearly to voxels of ``pixdim`` millimetres; axes keep their direction, a shear is removed."""

    def __init__(self, pixdim: Sequence[float]) -> None:
        self.pixdim = np.asarray(pixdim, float)

    def __call__(self, volume: Volume) -> Volume:
        self._shape = volume.data.shape[1:]
        affine, shape = self.grid(volume.affine, self._shape)
        unchanged = shape == self._shape and np.allclose(affine, volume.affine, atol=_TOLERANCE)
        self.resamples = not unchanged
        if unchanged:
            return volume
        self._to_source = np.linalg.solve(volume.affine, affine)
        return Volume(np.stack([_resample(channel, self._to_source, shape) for channel in volume.data]), affine)

    def grid(self, affine: np.ndarray, source: Sequence[int]) -> tuple[np.ndarray, tuple[int, ...]]:
        """Affine and shape of the target grid, which begins at the source's first corner."""
        axes = affine[:3, :3]
        now = np.sqrt((axes**2).sum(axis=0))
        wanted = np.where(self.pixdim > 0, self.pixdim, now)
        wanted = np.where(np.abs(now - wanted) <= _TOLERANCE, now, wanted)
        shear = np.linalg.cholesky(axes.T @ axes).T
        target = np.eye(4)
        target[:3, :3] = axes @ np.linalg.inv(shear) @ np.diag(np.sign(np.diag(shear)) * wanted)
        corners = _corners(source)
        reached = np.linalg.solve(target, affine @ corners)[:3]
        shape = tuple(int(side) for side in np.round(np.ptp(reached, axis=1) + 1))
        # the corner that no other lies before; with a shear there may be none, then the centres agree
        firsts = np.isclose((reached[:, None] - reached[:, :, None]).min(axis=2), 0, rtol=_TOLERANCE).all(axis=0)
        if firsts.any():
            target[:3, 3] = (affine @ corners)[:3, int(np.argmax(firsts))]
        else:
            centre = affine[:3, :3] @ (np.array(source) / 2) + affine[:3, 3]
            target[:3, 3] = centre - target[:3, :3] @ (np.array(shape) / 2)
        return target, shape

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Labels (X, Y, Z) on the grid before the step, from scores (C, X, Y, Z), a block of planes at a time."""
        if not self.resamples:
            return values
        to_scores = np.linalg.inv(self._to_source)
        planes = max(1, _BLOCK // math.prod(self._shape[1:]))
        labels = np.empty(self._shape, np.uint8)
        for first in range(0, self._shape[0], planes):
            block = labels[first : first + planes]
            matrix = to_scores.copy()
            matrix[:3, 3] += to_scores[:3, 0] * first
            block[...] = most_likely(np.stack([_resample(score, matrix, block.shape) for score in values]))
        return labels


def most_likely(scores: np.ndarray) -> np.ndarray:
    """Class (X, Y, Z) of the largest score (C, X, Y, Z); plane by plane, because numpy counts in eight bytes."""
    labels = np.empty(scores.shape[1:], np.uint8)
    for plane, label in enumerate(labels):
        label[...] = scores[:, plane].argmax(axis=0)
    return labels


def _resample(data: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation; ``matrix`` takes voxels of the result to those of ``data``, whose border continues."""
    from scipy import ndimage  # half a second that is not needed where images have the network's spacing

    axes, offset = matrix[:3, :3], matrix[:3, 3]
    if np.allclose(axes, np.diag(np.diag(axes)), rtol=0, atol=1e-9):
        axes = np.diag(axes)  # axis by axis, several times faster
    return ndimage.affine_transform(data, axes, offset, shape, np.float32, order=1, mode="nearest")


class Normalize:
    """Zero mean and unit variance in each channel; of the voxels that are not 0 if ``nonzero``."""

    resamples = False

    def __init__(self, nonzero: bool) -> None:
        self.nonzero = nonzero

    def __call__(self, volume: Volume) -> Volume:
        data = np.array(volume.data, np.float32, order="C")
        for channel in data:
            where: Any = channel != 0 if self.nonzero else np.ones((len(channel), 1, 1), bool)
            count = np.count_nonzero(where) if self.nonzero else channel.size
            if count:
                mean = channel.sum(where=where, dtype=np.float64) / count
                # a plane at a time: the differences of a whole head in float64 would take more than all else
                squares = (
                    np.square(p - mean, dtype=np.float64).sum(where=w) for p, w in zip(channel, where, strict=True)
                )
                deviation = math.sqrt(sum(squares) / count) or 1.0
                np.subtract(channel, np.float32(mean), out=channel, where=where)
                np.divide(channel, np.float32(deviation), out=channel, where=where)
        return Volume(data, volume.affine)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """The grid is the same."""
        return values


STEPS: dict[str, Callable[..., Any]] = {
    "orient": Orient,
    "crop_foreground": CropForeground,
    "spacing": Spacing,
    "normalize": Normalize,
}


class SlidingWindow:
    """Mean of overlapping windows of ``size``, weighted by a Gaussian; smaller images are padded with 0."""

    def __init__(self, size: Sequence[int], overlap: float) -> None:
        self.size = tuple(size)
        self.overlap = overlap
        # MONAI's importance map: sigma is an eighth of the side
        axes = [np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (n / 8) ** 2)) for n in self.size]
        weights = np.einsum("i,j,k->ijk", *axes).astype(np.float32)
        self._weights = np.maximum(weights, max(weights.min(), 1e-3))

    def windows(self, shape: Sequence[int]) -> list[tuple[slice, ...]]:
        """Windows over a volume that is not smaller than one."""
        starts = [self._starts(side, n) for side, n in zip(shape, self.size, strict=True)]
        corners = itertools.product(*starts)
        return [tuple(slice(a, a + n) for a, n in zip(corner, self.size, strict=True)) for corner in corners]

    def _starts(self, side: int, window: int) -> list[int]:
        step = max(int(window * (1 - self.overlap)), 1)
        count = math.ceil((side - window) / step) + 1
        return [min(i * step, side - window) for i in range(count)]

    def patches(self, data: np.ndarray) -> Iterator[np.ndarray]:
        """Each window (1, M, X, Y, Z) of a volume (M, X, Y, Z) that is not smaller than one."""
        for window in self.windows(data.shape[1:]):
            yield np.ascontiguousarray(data[(slice(None), *window)])[None]

    def pad(self, data: np.ndarray) -> tuple[np.ndarray, tuple[slice, ...]]:
        """A volume that is not smaller than a window, and where the original lies in it."""
        missing = [max(n - side, 0) for side, n in zip(data.shape[1:], self.size, strict=True)]
        before = [m // 2 for m in missing]
        inside = (slice(None), *(slice(b, b + side) for b, side in zip(before, data.shape[1:], strict=True)))
        if any(missing):
            data = np.pad(data, [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))])
        return data, inside

    def __call__(self, data: np.ndarray, network: Engine, at_a_time: int | None = None) -> np.ndarray:
        """Scores (C, X, Y, Z) of an image (M, X, Y, Z); at most ``at_a_time`` windows are computed at once."""
        data, inside = self.pad(data)
        total = np.zeros(data.shape[1:], np.float32)
        scores: Any = None
        windows = self.windows(data.shape[1:])
        results = network.map(self.patches(data), min(len(windows), at_a_time or len(windows)))
        for window, result in zip(windows, results, strict=True):
            if scores is None:
                scores = np.zeros((result.shape[1], *data.shape[1:]), np.float32)
            result *= self._weights
            scores[(slice(None), *window)] += result[0]
            total[window] += self._weights
        scores /= total
        return scores[inside]


@dataclass(frozen=True)
class Case:
    """What one label map is made from."""

    name: str  # path below the output folder, without suffix
    files: tuple[Path, ...]  # one per channel
    problem: str = ""  # why it cannot be segmented


def find_cases(
    inputs: Sequence[Path], channels: Sequence[str], readable: Callable[[Path], bool], output: Path | None = None
) -> list[Case]:
    """Cases below files, folders and data lists, not in ``output``; one that lacks a channel has a ``problem``.

    With several channels, their files lie in one folder and differ by the channel's name or by nnU-Net's ``_0000``,
    at the end of the file's name or as the whole of it; exactly as many single files are one case, in channel order.
    A name does not depend on the other cases, so that what is done stays done when images are added.

    Raises:
        PredictError: if nothing is found, or two cases would have one name.
    """
    for path in inputs:
        if not path.exists():
            raise PredictError(f"no such input – {path} – expected an image, a folder or a datalist.json")
    if len(channels) > 1 and len(inputs) == len(channels) and all(map(Path.is_file, inputs)):
        return [Case(_stem(inputs[0]), tuple(inputs))]
    cases: list[Case] = []
    for path in inputs:
        listed = path / "datalist.json" if path.is_dir() else path
        if listed.suffix == ".json" and listed.is_file():
            cases += _listed(listed)
        else:
            whole = path.is_file() or readable(path)  # a folder of DICOM files is one image
            files = [path] if whole else sorted(filter(readable, _below(path, output)))
            root = path.absolute().parent if whole else path
            cases += _group(files, root, channels)
    if not cases:
        expected = "expected images outside of the output folder, or a data list with test cases"
        raise PredictError(f"no image – {', '.join(map(str, inputs))} – {expected} – correct the path")
    # also on a system that ignores the case of letters
    counts = Counter(case.name.casefold() for case in cases)
    name, count = counts.most_common(1)[0]
    if count > 1:
        both = ", ".join(str(case.files[0]) for case in cases if case.name.casefold() == name)
        step = "pass their folders one by one, each with an --output of its own"
        raise PredictError(f"two cases with one name – {both} – expected different names – {step}")
    return cases


def _below(root: Path, output: Path | None) -> Iterator[Path]:
    """Files and folders but hidden ones and results; links are followed, into no folder twice, real folders first."""
    seen, results = {output and os.path.realpath(output)}, set()
    for place, folders, files in os.walk(root, onerror=_unlisted, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        if ".dcd_predict" in folders or os.path.dirname(place) in results:
            results.add(place)
        links = {name: os.path.islink(os.path.join(place, name)) for name in folders if not name.startswith(".")}
        folders[:] = sorted(links, key=lambda name: (links[name], name))
        names = [*folders, *(name for name in files if not name.startswith("."))]
        yield from (Path(place, n) for n in names if place not in results or not n.endswith("_seg.nii.gz"))


def _unlisted(error: OSError) -> None:
    raise PredictError(f"folder cannot be listed – {error.filename} – {error.strerror}") from error


def _listed(path: Path) -> list[Case]:
    """Test entries of a data list, whose paths are relative to it."""
    cases = []
    try:
        for entry in json.loads(path.read_text("utf-8-sig")).get("test", []):
            entry = entry if isinstance(entry, dict) else {"image": entry}
            image = entry["image"]
            files = tuple(path.parent / name for name in ([image] if isinstance(image, str) else image))
            # a result's name has no folders in it
            cases.append(Case(re.sub(r"[/\\\0]", "_", str(entry.get("case") or _stem(files[0]))), files))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise PredictError(f"unusable data list – {path} – {one_line(error)} – prepare the data again") from error
    return cases


def _group(files: Sequence[Path], root: Path, channels: Sequence[str]) -> list[Case]:
    groups: dict[str, dict[int, Path]] = {}
    for file in files:
        stem, channel = _split(_stem(file), channels)
        folder = file.absolute().parent
        name = str((folder / stem if stem else folder).relative_to(root.absolute())).replace(os.sep, "/")
        group = groups.setdefault(name if name != "." else root.resolve().name, {})
        if channel in group:
            both = f"{group[channel]}, {file}"
            raise PredictError(f"two files with one name – {both} – expected one per channel – remove or rename one")
        group[channel] = file
    cases = []
    for name, found in groups.items():
        missing = [channel for index, channel in enumerate(channels) if index not in found]
        problem = f"no file for channel {', '.join(missing)}" if missing else ""
        cases.append(Case(name, tuple(found[key] for key in sorted(found)), problem))
    return cases


def _split(stem: str, channels: Sequence[str]) -> tuple[str, int]:
    """A file's stem without its channel, and the channel's index; a single channel need not be named."""
    numbered = re.fullmatch(r"(.*)_(\d{4})", stem)
    if numbered and int(numbered[2]) < len(channels):
        return numbered[1], int(numbered[2])
    if len(channels) > 1:
        for index, channel in enumerate(channels):
            named = re.fullmatch(rf"(|.*[^a-zA-Z0-9]){re.escape(channel)}", stem, re.IGNORECASE)
            if named:
                return named[1].rstrip("-_. "), index
    return stem, 0 if len(channels) == 1 else -1


def _stem(file: Path) -> str:
    name = file.name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name if file.is_dir() else file.stem  # a folder may be named by a DICOM UID


def is_nifti(path: Path) -> bool:
    """Whether nibabel reads a file of this name, or a broken link; an Analyze image is named by its ``.img``."""
    return path.name.lower().endswith(SUFFIXES) and (path.is_file() or path.is_symlink())


class Engine:
    """A network on some inference engine."""

    def map(self, patches: Iterable[np.ndarray], at_a_time: int) -> Iterator[np.ndarray]:
        """Results (1, C, X, Y, Z) of patches (1, M, X, Y, Z), in their order; the caller may overwrite each.

        An engine may compute up to ``at_a_time`` of them at once.
        """
        raise NotImplementedError


class OpenVINO(Engine):
    """``network.xml``, read for patches of one shape (M, X, Y, Z).

    Where there are several windows, each is computed by one thread: threads that share a window wait for each other at
    every layer, which costs twice the time where one core is busy with something else.
    """

    def __init__(self, file: Path, shape: Sequence[int], threads: int, precision: str = "f32") -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(file)
        model.reshape([1, *shape])

        def compiled(streams: int) -> Any:
            settings = {
                "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": precision,
                # threads may leave a core that is busy
                "ENABLE_CPU_PINNING": False,
            }
            return core.compile_model(model, "CPU", settings)

        self._compile, self._threads = compiled, threads
        self._small = math.prod(shape[1:]) <= _SMALL
        self._ready: dict[int, list[Any]] = {}

    @classmethod
    def of(cls, compiled: Any) -> OpenVINO:
        """A network that was compiled elsewhere."""
        engine = cls.__new__(cls)
        engine._compile, engine._threads, engine._ready, engine._small = lambda streams: compiled, 1, {}, True
        return engine

    def _requests(self, at_a_time: int) -> list[Any]:
        # a power of two, so that cases of slightly different sizes share a compiled network
        streams = 2 ** int(math.log2(min(at_a_time, self._threads)))
        if streams not in self._ready:
            if not self._small:
                self._ready.clear()  # before the next one takes memory
            compiled = self._compile(streams)
            # one more than are computed, so that no thread waits for the sum of the windows
            self._ready[streams] = [compiled.create_infer_request() for _ in range(streams + 1)]
        return self._ready[streams]

    def map(self, patches: Iterable[np.ndarray], at_a_time: int) -> Iterator[np.ndarray]:
        under_way: deque[Any] = deque()
        requests = self._requests(at_a_time)
        for patch, request in zip(patches, itertools.cycle(requests)):
            if len(under_way) == len(requests):
                yield self._result(under_way.popleft())
            request.start_async([patch], share_inputs=True)
            under_way.append(request)
        while under_way:
            yield self._result(under_way.popleft())

    @staticmethod
    def _result(request: Any) -> np.ndarray:
        request.wait()
        return request.get_output_tensor(0).data


class OnnxRuntime(Engine):
    """``network.onnx``."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # a thread that waits leaves its core to others
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def map(self, patches: Iterable[np.ndarray], at_a_time: int) -> Iterator[np.ndarray]:
        name = self._session.get_inputs()[0].name
        for patch in patches:
            yield self._session.run(None, {name: patch})[0]


class Pipeline:
    """From image files to a label map, as ``pipeline.json`` of a folder says.

    Args:
        folder: with ``pipeline.json`` and the network it names.
        threads: of the inference engine; default: the cores this process may use.
        precision: of OpenVINO's arithmetic, "f32", or "bf16" where the processor has it.
    """

    def __init__(self, folder: Path, threads: int | None = None, precision: str = "f32") -> None:
        self.spec: dict[str, Any] = json.loads((folder / "pipeline.json").read_text("utf-8"))
        self.channels: list[str] = self.spec["channels"]
        self.window = SlidingWindow(**self.spec["window"])
        network, threads = folder / self.spec["network"], threads or cores()
        shape = [len(self.channels), *self.window.size]
        self.engine: Engine
        if network.suffix == ".onnx":
            self.engine = OnnxRuntime(network, threads)
        else:
            self.engine = OpenVINO(network, shape, threads, precision)

    load = staticmethod(read)

    def read(self, files: Sequence[Path]) -> Volume:
        """The image of a case, by ``load``; refused with more or fewer channels than the network has."""
        volume = self.load(files)
        if len(volume.data) != len(self.channels):
            found = f"expected {len(self.channels)} channels, found {len(volume.data)}"
            raise PredictError(f"wrong number of channels – {', '.join(map(str, files))} – {found}")
        return volume

    def bytes_needed(self, files: Sequence[Path]) -> int:
        """Upper bound of what a case needs beyond the network itself, from its headers: no foreground is cropped."""
        header = _open(files[0])
        shape, affine = header.shape[:3], header.affine
        inner = shape
        for step in (STEPS[name](**options) for name, options in self.spec["steps"]):
            if isinstance(step, Spacing):
                inner = step.grid(affine, shape)[1]
        given, wanted = math.prod(shape), math.prod(max(pair) for pair in zip(inner, self.window.size, strict=True))
        channels, classes = len(self.channels), len(self.spec["classes"])
        # the image as floats; resampled and normalised; scores and weights; a block of scores
        floats = channels * given + 2 * channels * wanted + (classes + 1) * wanted
        # as stored, twice while it is unzipped, of the files that are read at once; labels twice
        stored = 2 * min(channels, cores() * channels // len(files)) * header.get_data_dtype().itemsize
        return 4 * (floats + (classes + 1) * min(given, _BLOCK)) + (stored + 2) * given

    def preprocess(self, volume: Volume) -> tuple[np.ndarray, list[Any]]:
        """The network's input (M, X, Y, Z), and the steps that lead back."""
        steps = [STEPS[name](**options) for name, options in self.spec["steps"]]
        for step in steps:
            volume = step(volume)
        return volume.data, steps

    def network(self, data: np.ndarray, at_a_time: int | None = None) -> np.ndarray:
        """Scores (C, X, Y, Z) of the network's input; ``at_a_time`` bounds how many windows are computed at once."""
        return self.window(data, self.engine, at_a_time)

    @staticmethod
    def postprocess(scores: np.ndarray, steps: Sequence[Any]) -> np.ndarray:
        """Label map (X, Y, Z) in uint8 on the image's grid."""
        values = scores
        for position in reversed(range(len(steps))):
            if values.ndim == 4 and not any(step.resamples for step in steps[: position + 1]):
                values = most_likely(values)
            values = steps[position].restore(values)
        return values if values.ndim == 3 else most_likely(values)

    @staticmethod
    def write(labels: np.ndarray, affine: np.ndarray, path: Path) -> None:
        """A NIfTI file, complete or not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}")  # one that a kill left is replaced by the next
        try:
            nib.save(nib.Nifti1Image(labels, affine), temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def __call__(self, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        """Label map of a case, in the shape of its file, and its affine."""
        volume = self.read(files)
        affine, shape = volume.affine, volume.shape
        data, steps = self.preprocess(volume)
        del volume  # the scores take its place
        labels = self.postprocess(self.network(data), steps)
        return labels.reshape(shape or labels.shape), affine


def in_one_line(error: Exception, case: Case) -> str:
    """What went wrong, and where."""
    text = str(error).splitlines()[0] if isinstance(error, PredictError) else one_line(error)
    return text if any(name in text for name in (case.name, *map(str, case.files))) else f"{text} – {case.name}"


def one_line(error: BaseException) -> str:
    """Type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> int:
    """Command line of the standalone folder."""
    pipeline_folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Segment images: one label map for each, or for each set of channels.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a case's channels in order; or folders")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    failed = 0
    try:
        pipeline = Pipeline(pipeline_folder, options.threads)
    except Exception as error:  # each inference engine has its own for a damaged file
        sys.exit(f"error: cannot read the network – {pipeline_folder} – {one_line(error)}")
    try:
        cases = find_cases(options.images, pipeline.channels, is_nifti, options.output)
    except PredictError as error:
        sys.exit(f"error: {error}")
    for case in cases:
        path = options.output / f"{case.name}_seg.nii.gz"
        try:
            if case.problem:
                raise PredictError(f"{case.problem} – {case.name}")
            pipeline.write(*pipeline(case.files), path)
            print(path)
        except Exception as error:  # the other cases go on
            failed += 1
            logger.error("%s", in_one_line(error, case))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
