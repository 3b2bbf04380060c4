"""INT8 with a bound: quantised layers are put back to float until the Dice on held-out cases is close enough."""

import itertools
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.bundles.export import require
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.data import load_cases
from dcd_ext.data.nifti import voxels
from dcd_ext.errors import UserError
from dcd_ext.inference.values import whole_labels
from dcd_ext.io import sha256
from dcd_ext.predict.norms import make_narrow_norms_planar
from dcd_ext.predict.runtime import OpenVINO, Pipeline
from dcd_ext.predict.standalone import NETWORKS, write_standalone
from dcd_ext.readers import read_pipeline

logger = logging.getLogger(__name__)
# windows of the calibration; more did not change the result of the hippocampus bundles
_CALIBRATION = 64


def export_int8(root: Path, dataset_dir: Path, fold: int, max_drop: float) -> tuple[Path, dict[str, Any]]:
    """Quantise a bundle's network with NNCF, judged by whole cases, and write it as ``models/int8`` of the bundle.

    Args:
        root: a bundle with ``models/model.pt``.
        dataset_dir: prepared data.
        fold: cases that the network was not trained on, which both calibrate and judge.
        max_drop: by how much the mean Dice may fall; refused, with nothing written, if it falls by more.
    """
    cases = load_cases(str(dataset_dir), "validation", fold)

    def make(bundle: BundleFolder, path: Path) -> dict[str, Any]:
        return {"int8": _quantize(bundle, path, cases, max_drop)}

    folder = write_standalone(root, root / "models" / "int8", "int8", make)
    return folder, read_pipeline(folder)["int8"]


def _quantize(bundle: BundleFolder, path: Path, cases: Sequence[dict], max_drop: float) -> dict[str, Any]:
    nncf, openvino = require("nncf"), require("openvino")
    with tempfile.TemporaryDirectory() as temporary:
        floating = write_standalone(bundle.root, Path(temporary, "f32"))
        judge = _Judge(Pipeline(floating), cases)
        before = float(np.mean([judge.dice(position) for position in range(len(cases))]))
        model = openvino.Core().read_model(floating / NETWORKS["openvino"])
        model.reshape([1, *judge.shape])
        quantized = nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=nncf.Dataset(judge.windows(_CALIBRATION)),
            validation_dataset=nncf.Dataset(range(len(cases))),
            validation_fn=judge.validate,
            max_drop=max_drop,
        )
        make_narrow_norms_planar(quantized)
        after, _ = judge.validate(
            openvino.compile_model(quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), range(len(cases))
        )
    require_bound(bundle.name, before, after, max_drop)
    openvino.save_model(quantized, path, compress_to_fp16=False)
    measured = {"dice_float32": round(before, 4), "dice_int8": round(after, 4), "cases": len(cases)}
    return {**measured, "weights_sha256": sha256(bundle.weights)}


def require_bound(name: str, before: float, after: float, max_drop: float) -> None:
    """Refuse a network whose mean Dice fell by more than ``max_drop``, or is NaN."""
    if not before - after <= max_drop:
        found = f"{before:.4f} before, {after:.4f} after"
        raise UserError("INT8 loses too much Dice", name, f"a drop up to {max_drop}", found, "raise --max_drop")


class _Judge:
    """Dice of whole cases, whatever runs the network."""

    def __init__(self, pipeline: Pipeline, cases: Sequence[dict]) -> None:
        self._pipeline = pipeline
        self.shape = [len(pipeline.channels), *pipeline.spec["window"]["size"]]
        self._inputs, self._truths = [], []
        for case in cases:
            image = [case["image"]] if isinstance(case["image"], str) else case["image"]
            self._inputs.append(pipeline.preprocess(pipeline.read([Path(file) for file in image])))
            label = Path(case["label"])
            self._truths.append(whole_labels(voxels(label), label, len(pipeline.spec["classes"])))

    def windows(self, count: int) -> list[np.ndarray]:
        """Windows (1, M, X, Y, Z) of the cases in turn."""
        window = self._pipeline.window
        patches = (patch for data, _ in self._inputs for patch in window.patches(window.pad(data)[0]))
        return list(itertools.islice(patches, count))

    def validate(self, compiled: Any, positions: Iterable[int]) -> tuple[float, list[float]]:
        """What NNCF asks: the mean over some cases, and each case's own."""
        self._pipeline.engine = OpenVINO.of(compiled)
        scores = [self.dice(position) for position in positions]
        return float(np.mean(scores)), scores

    def dice(self, position: int) -> float:
        """Mean over the classes of a case, those that are in neither map left out."""
        data, steps = self._inputs[position]
        labels, truth = self._pipeline.postprocess(self._pipeline.network(data), steps), self._truths[position]
        scores = []
        for value in range(1, len(self._pipeline.spec["classes"])):
            p, t = labels == value, truth == value
            if (total := int(p.sum()) + int(t.sum())) > 0:
                scores.append(2 * int((p & t).sum()) / total)
        return float(np.mean(scores)) if scores else 1.0
