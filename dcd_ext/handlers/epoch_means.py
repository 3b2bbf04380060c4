"""Means over the epoch of every scalar a training step reports."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

__all__ = ["EpochMeans"]


class EpochMeans:
    """Puts the epoch means of all scalar entries of ``engine.state.output`` into ``engine.state.metrics``.

    From there ``StatsHandler`` and ``MLFlowHandler`` log them: ``loss`` of every run and, when distilling,
    ``seg_loss``, ``kd_loss``, ``kd_weight`` and ``kd_stage_<i>``. Values stay on their device until the epoch ends,
    so that no step waits for a GPU.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: a ``monai.engines.SupervisedTrainer``.
        """
        if engine.has_event_handler(self, IterationEvents.BACKWARD_COMPLETED):
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        # before MODEL_COMPLETED, where the trainer may split the output into one dictionary per case
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Start new sums."""
        self._sums, self._steps = {}, 0

    def __call__(self, engine: Engine) -> None:
        """Add this step's scalars."""
        self._steps += 1
        output: Any = engine.state.output
        for name, value in output.items():
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                value = value.detach().reshape(()).double()
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def epoch_completed(self, engine: Engine) -> None:
        """Publish the means."""
        for name, total in self._sums.items():
            engine.state.metrics[name] = float(total) / self._steps
