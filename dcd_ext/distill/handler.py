"""Add a distillation term to the loss of a stock ``SupervisedTrainer``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import nn

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.distill.schedules import ConstantWeight
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.losses.base import DistillationLoss


class DistillationHandler:
    """Adds ``weight(epoch) * kd_loss(student features, teacher features)`` to the loss before the backward pass.

    At ``LOSS_COMPLETED`` the trainer has computed its loss and not yet called ``backward``; the teacher sees the same
    augmented batch as the student, and what is added to ``engine.state.output["loss"]`` is back-propagated. While the
    weight is 0 neither the teacher nor the loss runs, so that such an epoch equals one without distillation.

    The unweighted parts are left in ``engine.state.output`` for loggers: ``seg_loss``, ``kd_loss``, ``kd_weight``,
    ``kd_stage_<i>`` and ``kd_<name>`` for each named term of the loss.

    Args:
        network: the student, possibly wrapped for DDP.
        teacher: any trained network, which is frozen; it runs to its end only if the loss ``needs_teacher_output``.
        kd_loss: the distillation loss; its parameters belong in the trainer's optimizer.
        weight: schedule, called with the epoch (from 0) and the number of epochs; or a number.
        taps: dotted paths of the student's modules whose outputs are compared.
        teacher_taps: those of the teacher; default: the same.

    Raises:
        UserError: if the loss's parameters are missing from the optimizer, or a path names no module or one that does
            not run once per step.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module,
        kd_loss: DistillationLoss,
        weight: Callable[[int, int], float] | float,
        taps: Sequence[str],
        teacher_taps: Sequence[str] | None = None,
    ) -> None:
        self.teacher = teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher)
        self.kd_loss, self.weight = kd_loss, weight if callable(weight) else ConstantWeight(weight)
        self._student_hooks = FeatureHooks(network, taps, graded=True)
        stop = not kd_loss.needs_teacher_output
        self._teacher_hooks = FeatureHooks(self.teacher.network, teacher_taps or taps, stop_after_last=stop)
        self._epoch_weight = 0.0

    def attach(self, engine: Engine) -> None:
        if engine.has_event_handler(self, IterationEvents.LOSS_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.average_gradients)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.exception_raised)

    def started(self, engine: SupervisedTrainer) -> None:
        """Make sure that what is to be trained is trained, and that all processes start from the same projections."""
        trained = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
        missing = [n for n, p in self.kd_loss.named_parameters() if p.requires_grad and id(p) not in trained]
        if missing:
            found, step = f"{len(missing)} missing, e.g. {missing[0]}", "add them to 'parameter_groups' in the config"
            raise UserError("projections are not trained", "optimizer", "all parameters of kd_loss", found, step)
        if dist.is_initialized():
            for tensor in (*self.kd_loss.parameters(), *self.kd_loss.buffers()):
                dist.broadcast(tensor.data, src=0)

    def epoch_started(self, engine: Engine) -> None:
        epoch, max_epochs = engine.state.epoch - 1, int(engine.state.max_epochs or 1)
        self._epoch_weight = float(self.weight(epoch, max_epochs))

    def iteration_started(self, _engine: Engine) -> None:
        """Hook the student for this step's forward pass, unless the weight is 0."""
        if self._epoch_weight > 0:
            self._student_hooks.register()

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        output["kd_weight"] = torch.tensor(self._epoch_weight)
        if self._epoch_weight == 0:
            return
        self._student_hooks.remove()
        teacher_output = None
        with self._teacher_hooks:
            teacher_output = self.teacher(output[CommonKeys.IMAGE])
        features = self._student_hooks.pop(), self._teacher_hooks.pop()
        kd_loss = self.kd_loss(*features, output[CommonKeys.PRED], teacher_output, output[CommonKeys.LABEL])
        output["seg_loss"] = output[CommonKeys.LOSS].detach()
        output["kd_loss"] = kd_loss.detach()
        output.update({f"kd_stage_{i}": part for i, part in enumerate(self.kd_loss.stage_losses)})
        output.update({f"kd_{name}": part for name, part in self.kd_loss.components.items()})
        output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + self._epoch_weight * kd_loss

    def average_gradients(self, _engine: Engine) -> None:
        """Average the projections' gradients over the processes; DDP does so for the network only."""
        if self._epoch_weight == 0 or not dist.is_initialized():
            return
        for parameter in self.kd_loss.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()

    def exception_raised(self, _engine: Engine, exception: Exception) -> None:
        self._student_hooks.remove()
        raise exception
