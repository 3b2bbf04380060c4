"""Score predictions against the untouched label files and write ``metrics.json``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from torch import nn

from dcd_ext import __version__
from dcd_ext.errors import UserError
from dcd_ext.evaluation import EMPTY_RULE, case_metrics, summarise
from dcd_ext.io import write_json
from dcd_ext.networks import count_parameters
from dcd_ext.taps import unwrap

__all__ = ["MetricsJson"]


class MetricsJson:
    """Writes ``<output_dir>/metrics.json`` from an evaluator's output.

    Each item of ``engine.state.output`` has ``pred``, a label map (1, X, Y, Z) already inverted to the grid of the
    image file, ``truth``, the path of the label file, and ``case``. The label is read from its file and never
    resampled; its header gives the spacing.

    Args:
        output_dir: folder of ``metrics.json``.
        class_names: names of the classes 1..K.
        nsd_tolerance_mm: tolerance of the normalised surface Dice in mm.
        network: its parameter count is recorded.
        fold: the evaluated fold, recorded.

    Raises:
        UserError: if prediction and label differ in shape, or a case comes twice.
    """

    def __init__(
        self, output_dir: str, class_names: Sequence[str], nsd_tolerance_mm: float, network: nn.Module, fold: int
    ) -> None:
        self.output_dir = output_dir
        self.class_names = list(class_names)
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.network = network
        self.fold = fold
        self._cases: dict[str, dict[str, Any]] = {}
        self._clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator.

        Args:
            engine: a ``monai.engines.SupervisedEvaluator``.
        """
        if engine.has_event_handler(self, Events.ITERATION_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.batch_ready)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, _engine: Engine) -> None:
        """Forget earlier runs."""
        self._cases = {}

    def batch_ready(self, _engine: Engine) -> None:
        """Start the clock: loading is not inference."""
        self._clock = time.perf_counter()

    def __call__(self, engine: Engine) -> None:
        """Score the cases of this batch."""
        seconds = (time.perf_counter() - self._clock) / len(engine.state.output)
        for item in engine.state.output:
            case, path = item["case"], item["truth"]
            if case in self._cases:
                raise UserError("case twice", case, "each case once", "a second one", "check datalist.json")
            image = nib.load(path)
            truth = np.asarray(image.dataobj)
            pred = item["pred"][0].cpu().numpy()
            if pred.shape != truth.shape:
                raise UserError(
                    "prediction and label differ in shape",
                    f"{case}, {path}",
                    truth.shape,
                    pred.shape,
                    "run scripts/check_data.py: image and label lie on different grids",
                )
            spacing = image.header.get_zooms()[:3]
            classes = case_metrics(pred, np.rint(truth), spacing, self.class_names, self.nsd_tolerance_mm)
            self._cases[case] = {"classes": classes, "seconds": seconds, "label": os.path.basename(path)}

    def completed(self, engine: Engine) -> None:
        """Write the file."""
        cases = dict(sorted(self._cases.items()))
        content = {
            "format": "dcd-metrics-1",
            "dcd_ext_version": __version__,
            "class_names": self.class_names,
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "empty_rule": EMPTY_RULE,
            "fold": self.fold,
            "parameters": count_parameters(unwrap(self.network)),
            "seconds_per_case": float(np.mean([c["seconds"] for c in cases.values()])),
            "summary": summarise([c["classes"] for c in cases.values()], self.class_names),
            "cases": cases,
        }
        path = os.path.join(self.output_dir, "metrics.json")
        write_json(content, path)
        dice = content["summary"]["mean"]["dice"]["mean"]
        engine.logger.info(f"{len(cases)} cases, mean foreground Dice {dice:.4f}: {path}")
