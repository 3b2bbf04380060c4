"""Score predictions against the untouched label files and write ``metrics.json``."""

import csv
import functools
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from dcd_ext import __version__
from dcd_ext import evaluation as ev
from dcd_ext.distributed import destroy_process_group, gather_objects, is_main_process
from dcd_ext.errors import UserError
from dcd_ext.inference.cohort import reason
from dcd_ext.io import write_json, write_text
from dcd_ext.versions import environment


class MetricsJson:
    """Writes ``<output_dir>/metrics.json`` and ``metrics.csv`` from the output of a ``CohortEvaluator``.

    Each item of ``engine.state.output`` has ``pred``, a label map (1, X, Y, Z) with its affine (``MetaTensor``), on
    the grid of the image file; the item of ``engine.state.batch`` has ``case`` and ``truth``, the path of
    the label file. The label is never resampled; its header gives the spacing. Cases are scored in parallel: beside a
    prediction on a GPU, in turns with one on the CPU, so that the recorded seconds are those of the prediction alone.
    The first process of a distributed run writes the two files, with the cases of all. Cases that fail, while they are
    segmented or scored, are listed under ``failed`` with the reason; the run then ends with a ``UserError``.

    Args:
        class_names: of the classes 1..K.
        nsd_tolerance_mm: tolerance of the normalised surface Dice in mm.
        network: its parameters and floating-point operations are counted.
        fold: the held-out fold (``all`` for none), recorded.
        section: what is evaluated, recorded: ``validation``, the fold that chose the weights, or ``test``.
        dataset_dir: folder of ``datalist.json``, whose task and modalities are recorded.
        ckpt_path: the weights, whose SHA-256 is recorded.
        patch: shape (M, X, Y, Z) of the input whose floating-point operations are counted.
        save_predictions: also write ``predictions/<case>.nii.gz``, on the label's grid.
        workers: threads that score; default: one per core.
    """

    def __init__(
        self,
        output_dir: str,
        class_names: Sequence[str],
        nsd_tolerance_mm: float,
        network: nn.Module,
        fold: int | str,
        dataset_dir: str | None = None,
        ckpt_path: str | None = None,
        patch: Sequence[int] | None = None,
        save_predictions: bool = False,
        workers: int | None = None,
        section: str = "validation",
    ) -> None:
        self.output_dir = output_dir
        self.class_names = list(class_names)
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.network = network
        self.fold, self.section = fold, section
        self.dataset_dir, self.ckpt_path, self.patch = dataset_dir, ckpt_path, patch
        self.save_predictions = save_predictions
        self.workers = workers
        self._pool: ev.ScoringPool | None = None
        self._cases: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}
        self._clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.SupervisedEvaluator``."""
        if engine.has_event_handler(self, Events.ITERATION_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.batch_ready)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.exception_raised)

    def started(self, engine: Engine) -> None:
        self._cases, self._failed = {}, {}
        device = getattr(engine.state, "device", None)
        on_gpu = device is not None and torch.device(device).type == "cuda"
        self._pool = ev.ScoringPool(self.workers, in_turns=not on_gpu)

    def batch_ready(self, _engine: Engine) -> None:
        """Start the clock: loading is not inference."""
        self._clock = time.perf_counter()

    def __call__(self, engine: Engine) -> None:
        assert self._pool is not None
        state: Any = engine.state
        if not state.output:  # this case has failed
            return
        # copying to the CPU waits for a GPU, so it comes before the clock is read
        predictions = [item["pred"][0].to("cpu", torch.uint8).numpy() for item in state.output]
        seconds = (time.perf_counter() - self._clock) / len(predictions)
        # MONAI splits the batch into cases, too, but does not put its other entries into the output
        affines = [np.asarray(item["pred"].affine, float) for item in state.output]
        for item, pred, affine in zip(state.batch, predictions, affines, strict=True):
            case, path = item["case"], item["truth"]
            if case in self._cases:
                raise UserError(f"duplicate case {case}", "datalist.json", next_step="run dcd check")
            self._cases[case] = {"seconds": seconds, "label": os.path.basename(path)}
            save_as = ev.prediction_path(self.output_dir, case) if self.save_predictions else None
            self._pool.submit(functools.partial(self._score, engine, case, pred, affine, path, save_as))

    def _score(
        self, engine: Any, case: str, pred: np.ndarray, affine: np.ndarray, path: str, save_as: str | None
    ) -> None:
        # the engine's thread has made the entry and does not look at it before the pool has finished
        try:
            scores = ev.score_file(case, pred, affine, path, self.class_names, self.nsd_tolerance_mm, save_as)
        except Exception as error:  # a damaged label raises one of many types
            self._failed[case] = reason(error, [path])
            engine.logger.error(f"case {case} failed – {self._failed[case]}")
        else:
            self._cases[case]["classes"] = scores

    def completed(self, engine: Any) -> None:
        assert self._pool is not None
        self._pool.finish()
        cases = _gather_cases({case: entry for case, entry in self._cases.items() if "classes" in entry})
        failed = _gather_cases({**getattr(engine, "failures", {}), **self._failed})
        if is_main_process():
            Path(self.output_dir, "metrics.json").unlink(missing_ok=True)
            if cases:
                self._write(engine, cases, failed)
        if failed:
            # torchrun ends all processes as soon as one has failed: not before the files are written
            idist.barrier()
            # the config's finalize section will not be reached
            destroy_process_group(self.network)
            what, (first, why) = f"{len(failed)} of {len(failed) + len(cases)} cases failed", next(iter(failed.items()))
            raise UserError(what, self.output_dir, next_step=f"the first one, {first}: {why}")

    def _write(self, engine: Any, cases: dict[str, Any], failed: dict[str, Any]) -> None:
        content = {
            "format": "dcd-metrics-1",
            "dcd_ext_version": __version__,
            **ev.dataset_record(self.dataset_dir),
            "fold": self.fold,
            "section": self.section,
            "class_names": self.class_names,
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "empty_rule": ev.EMPTY_RULE,
            "nan_rule": ev.NAN_RULE,
            "lesion_rule": ev.LESION_RULE,
            **ev.network_record(self.network, self.ckpt_path, self.patch),
            "seconds_per_case": float(np.mean([c["seconds"] for c in cases.values()])),
            "environment": environment(getattr(engine.state, "device", None)),
            "summary": ev.summarise([c["classes"] for c in cases.values()], self.class_names),
            "cases": cases,
            **({"failed": failed} if failed else {}),
        }
        path = os.path.join(self.output_dir, "metrics.json")
        _write_csv(cases, self.nsd_tolerance_mm, os.path.join(self.output_dir, "metrics.csv"))
        write_json(content, path)
        dice = content["summary"]["mean"]["dice"]["mean"]
        shown = "not defined (all masks empty)" if dice is None else f"{dice:.4f}"
        engine.logger.info(f"{len(cases)} cases, mean foreground Dice {shown}: {path}")

    def exception_raised(self, _engine: Engine, exception: Exception) -> None:
        if self._pool is not None:
            self._pool.cancel()
        raise exception


def _gather_cases(cases: Mapping[str, Any]) -> dict[str, Any]:
    """The cases of all processes, by name; to be called in all of them. A case that two of them have is refused."""
    gathered: dict[str, Any] = {}
    for share in gather_objects(dict(cases)):
        if twice := sorted(gathered.keys() & share.keys()):
            raise UserError(f"case {twice[0]} in two processes", "evaluation", next_step="shard the cases")
        gathered |= share
    return dict(sorted(gathered.items()))


def _write_csv(cases: Mapping[str, Mapping[str, Any]], nsd_tolerance_mm: float, path: str) -> None:
    """One row per case and class of ``metrics.json``; a value that is excluded is an empty field.

    The tolerance is repeated in every row, so that the column ``nsd`` cannot be misread.
    """
    rows = [
        {"case": case, "class": name, **values, "nsd_tolerance_mm": nsd_tolerance_mm}
        for case, entry in cases.items()
        for name, values in entry["classes"].items()
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["case"])
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path)
