"""Keep what happened in training, epoch by epoch, in one file."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer

from dcd_ext.io import write_json
from dcd_ext.versions import environment

__all__ = ["TrainingRecord"]


class TrainingRecord:
    """Writes ``training.json``: versions, device, and for each epoch its seconds, learning rate and all metrics.

    Attach it after the validation handler, so that an epoch's entry has its validation metrics and time. A resumed run
    goes on with the file it finds.

    Args:
        path: the file.
        validator: the evaluator whose metrics are recorded beside the trainer's.
        write: False in all but one process of a distributed run.
    """

    def __init__(self, path: str, validator: Engine | None = None, write: bool = True) -> None:
        self.path = path
        self.validator = validator
        self.write = write
        self._epochs: list[dict[str, Any]] = []
        self._clock = 0.0
        self._learning_rate = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: a ``monai.engines.SupervisedTrainer``.
        """
        if engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def epoch_started(self, engine: SupervisedTrainer) -> None:
        """Start the clock; in the first epoch of a resumed run, take over what was recorded before it."""
        self._clock = time.perf_counter()
        self._learning_rate = engine.optimizer.param_groups[0]["lr"]  # a schedule may step before the epoch's record
        if engine.state.epoch > 1 and not self._epochs and os.path.isfile(self.path):
            with open(self.path, encoding="utf-8") as file:
                self._epochs = [e for e in json.load(file)["epochs"] if e["epoch"] < engine.state.epoch]

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Add this epoch and write the file."""
        entry: dict[str, Any] = {
            "epoch": engine.state.epoch,
            "seconds": time.perf_counter() - self._clock,
            "learning_rate": self._learning_rate,
            **_finite(engine.state.metrics),
        }
        # the validator keeps its last metrics; they belong to this epoch only if it has just run
        if self.validator is not None and self.validator.state.epoch == engine.state.epoch:
            entry.update(_finite(self.validator.state.metrics))
        self._epochs.append(entry)
        if self.write:
            record = {
                "environment": environment(getattr(engine.state, "device", None)),
                "seconds": sum(e["seconds"] for e in self._epochs),
                "epochs": self._epochs,
            }
            write_json(record, self.path)


def _finite(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Plain numbers; JSON has no NaN."""
    numbers = {name: float(value) for name, value in metrics.items()}
    return {name: value if abs(value) < float("inf") else None for name, value in numbers.items()}
