"""Add a distillation term to the loss of a stock ``SupervisedTrainer``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import nn

from dcd_ext.distill.hooks import FeatureTaps
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError

__all__ = ["DistillationHandler"]


class DistillationHandler:
    """Adds ``weight(epoch) * kd_loss(student features, teacher features)`` to the loss before the backward pass.

    At ``LOSS_COMPLETED`` the trainer has computed its loss and not yet called ``backward``; the teacher sees the same
    augmented batch as the student, and what is added to ``engine.state.output["loss"]`` is back-propagated. While the
    weight is 0 neither the teacher nor the loss runs, so that such an epoch equals one without distillation.

    The unweighted parts are left in ``engine.state.output`` for loggers: ``seg_loss``, ``kd_loss``, ``kd_weight`` and
    ``kd_stage_<i>`` and the loss's named components.

    Args:
        network: the student, possibly wrapped for DDP.
        teacher: the frozen teacher.
        kd_loss: called with the two lists of features (B, C_i, X_i, Y_i, Z_i), both networks' outputs and the label;
            returns a scalar. The teacher runs to its end only if the loss ``needs_teacher_output``. What it has of
            ``stage_losses`` and ``components`` is logged. Its parameters belong in the trainer's optimizer.
        weight: schedule, called with the epoch (from 0) and the number of epochs; or a number.
        taps: dotted paths of the student's tapped modules.
        teacher_taps: those of the teacher; default: the same.

    Raises:
        UserError: if the loss's parameters are missing from the optimizer, a tap is not found or did not fire.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: FrozenTeacher,
        kd_loss: nn.Module,
        weight: Callable[[int, int], float] | float,
        taps: Sequence[str],
        teacher_taps: Sequence[str] | None = None,
    ) -> None:
        self.network = network
        self.teacher = teacher
        self.kd_loss = kd_loss
        self.weight = weight
        self.taps = list(taps)
        self.teacher_taps = list(teacher_taps or taps)
        self._student: FeatureTaps | None = None
        self._teacher: FeatureTaps | None = None
        self._epoch_weight = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: a ``monai.engines.SupervisedTrainer``.
        """
        if engine.has_event_handler(self, IterationEvents.LOSS_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.average_gradients)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self.completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.exception_raised)

    def started(self, engine: SupervisedTrainer) -> None:
        """Set the taps and make sure that what is to be trained is trained."""
        self._remove_taps()
        self._student = FeatureTaps(self.network, self.taps)
        whole = getattr(self.kd_loss, "needs_teacher_output", False)
        self._teacher = self.teacher.tap(self.teacher_taps, stop_after_last=not whole)
        trained = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
        missing = [n for n, p in self.kd_loss.named_parameters() if p.requires_grad and id(p) not in trained]
        if missing:
            raise UserError(
                "projections are not trained",
                "optimizer",
                "all parameters of kd_loss",
                f"{len(missing)} missing, e.g. {missing[0]}",
                "add them to 'parameter_groups' in the config",
            )
        if _distributed():
            for tensor in (*self.kd_loss.parameters(), *self.kd_loss.buffers()):
                dist.broadcast(tensor.data, src=0)

    def epoch_started(self, engine: Engine) -> None:
        """Look up this epoch's weight."""
        epoch, max_epochs = engine.state.epoch - 1, int(engine.state.max_epochs or 1)
        self._epoch_weight = float(self.weight(epoch, max_epochs) if callable(self.weight) else self.weight)

    def iteration_started(self, _engine: Engine) -> None:
        """Let the student's taps listen only when they are needed."""
        assert self._student is not None
        self._student.enabled = self._epoch_weight > 0

    def __call__(self, engine: Engine) -> None:
        """Add the weighted term to ``engine.state.output["loss"]``."""
        output: Any = engine.state.output
        output["kd_weight"] = torch.tensor(self._epoch_weight)
        if self._epoch_weight == 0:
            return
        assert self._student is not None and self._teacher is not None
        self._student.enabled = False
        teacher_output = self.teacher(output[CommonKeys.IMAGE])
        features = self._student.pop(), self._teacher.pop()
        kd_loss = self.kd_loss(*features, output[CommonKeys.PRED], teacher_output, output[CommonKeys.LABEL])
        output["seg_loss"] = output[CommonKeys.LOSS].detach()
        output["kd_loss"] = kd_loss.detach()
        for i, stage_loss in enumerate(getattr(self.kd_loss, "stage_losses", ())):
            output[f"kd_stage_{i}"] = stage_loss
        for name, part in getattr(self.kd_loss, "components", {}).items():
            output[f"kd_{name}"] = part
        output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + self._epoch_weight * kd_loss

    def average_gradients(self, _engine: Engine) -> None:
        """Average the projections' gradients over the processes; DDP does so for the network only."""
        if self._epoch_weight == 0 or not _distributed():
            return
        for parameter in self.kd_loss.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()

    def completed(self, _engine: Engine) -> None:
        """Leave no hook behind."""
        self._remove_taps()

    def exception_raised(self, _engine: Engine, exception: Exception) -> None:
        """Leave no hook behind, then let the exception go on."""
        self._remove_taps()
        raise exception

    def _remove_taps(self) -> None:
        for taps in (self._student, self._teacher):
            if taps is not None:
                taps.remove()
        self._student = self._teacher = None


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
