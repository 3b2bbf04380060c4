"""Clip the gradient norm of everything the optimizer holds, right under automatic mixed precision."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch.utils.hooks import RemovableHandle

__all__ = ["GradientClipping"]


class GradientClipping:
    """Clips the norm over all parameters of the trainer's optimizer: the student's and the projections'.

    The clipping is a pre-hook of ``optimizer.step``: ``GradScaler.step`` has by then removed its scale from the
    gradients and has skipped the step if one was infinite, and gradients of several processes have been averaged.
    So the norm is always that of the true gradient. The norm before clipping is ``engine.state.grad_norm``.

    Args:
        max_norm: largest allowed L2 norm (nnU-Net: 12).
    """

    def __init__(self, max_norm: float = 12.0) -> None:
        self.max_norm = max_norm
        self._handle: RemovableHandle | None = None
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: a ``monai.engines.SupervisedTrainer``; it has to have an ``optimizer`` when it starts.
        """
        if engine.has_event_handler(self.started, Events.STARTED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self.completed)

    def started(self, engine: SupervisedTrainer) -> None:
        """Hook the optimizer."""
        self.completed(engine)
        self._engine = engine
        self._handle = engine.optimizer.register_step_pre_hook(self)

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        """Clip, just before the step."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        assert self._engine is not None
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        setattr(self._engine.state, "grad_norm", norm)  # noqa: B010 - ignite's State takes any attribute, mypy none

    def completed(self, _engine: Engine) -> None:
        """Take the hook off the optimizer."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._engine = None
