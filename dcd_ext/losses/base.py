"""What every distillation loss of this package is: one signature, one scalar, named parts for the log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from dcd_ext.losses._checks import check_channels, check_features
from dcd_ext.losses._lifting import make_projections
from dcd_ext.losses._options import check_choice, check_stage_weights
from dcd_ext.tensors import plain_tensor

__all__ = ["Batch", "DistillationLoss", "FeatureLoss", "Terms"]

Terms = dict[str, torch.Tensor]
Output = torch.Tensor | Sequence[torch.Tensor] | None


class Batch(NamedTuple):
    """What a loss was called with; see :meth:`DistillationLoss.forward`."""

    student_features: Sequence[torch.Tensor]
    teacher_features: Sequence[torch.Tensor]
    student_output: Output
    teacher_output: Output
    label: torch.Tensor | None


class DistillationLoss(nn.Module, ABC):
    """A loss between a student and its frozen teacher; everything it trains is a parameter of this module.

    Computed outside autocast in float32 (float64 stays); no gradient reaches the teacher's side.

    Attributes:
        needs_features: whether the two lists of features are looked at.
        needs_teacher_output: whether the teacher has to run to its end.
        needs_label: whether the label is looked at.
        components: after a call, detached scalars by name whose sum is the loss.
        stage_losses: after a call, one detached scalar per stage; their sum is the loss.
    """

    needs_features: bool = True
    needs_teacher_output: bool = False
    needs_label: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.components: Terms = {}
        self.stage_losses: tuple[torch.Tensor, ...] = ()

    def forward(
        self,
        student_features: Sequence[torch.Tensor],
        teacher_features: Sequence[torch.Tensor],
        student_output: Output = None,
        teacher_output: Output = None,
        label: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss, a scalar.

        Args:
            student_features: one tensor (B, C_i^S, X_i, Y_i, Z_i) per stage; empty if not needed.
            teacher_features: one tensor (B, C_i^T, X_i, Y_i, Z_i) per stage; empty if not needed.
            student_output: logits (B, K, X, Y, Z), or the deep supervision list with the finest first.
            teacher_output: the teacher's.
            label: (B, 1, X, Y, Z), class numbers from 0.

        Raises:
            UserError: if something needed is missing or shapes do not fit.
        """
        batch = Batch(student_features, teacher_features, student_output, teacher_output, label)
        with torch.autocast(_device_type(batch), enabled=False):
            stages = self.terms(batch)
            totals = [torch.stack(list(stage.values())).sum() for stage in stages]
            loss = torch.stack(totals).sum()
        self.stage_losses = tuple(total.detach() for total in totals)
        self.components = {name: torch.stack([s[name].detach() for s in stages]).sum() for name in stages[0]}
        return loss

    @abstractmethod
    def terms(self, batch: Batch) -> list[Terms]:
        """Per stage the weighted terms of the loss, under the same names at every stage."""


class FeatureLoss(DistillationLoss):
    """A loss that compares features stage by stage.

    Args:
        student_channels: the student's channels per stage.
        teacher_channels: the teacher's.
        stage_weights: weight per stage; None: 1 / number of stages.
        projection: "conv": a trained 1×1×1 convolution lifts student features to the teacher's width; "identity": none,
            for equal widths; "none": none, widths may differ.
        bias: whether the convolutions have one.
        train_projections: False freezes them as they are drawn.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        stage_weights: Sequence[float] | None = None,
        projection: str = "conv",
        bias: bool = False,
        train_projections: bool = True,
    ) -> None:
        super().__init__()
        check_choice("projection", projection, ("conv", "identity", "none"))
        check_channels(student_channels, teacher_channels, projection)
        check_stage_weights(stage_weights, len(student_channels))
        self.student_channels, self.teacher_channels = tuple(student_channels), tuple(teacher_channels)
        n = len(self.student_channels)
        self.stage_weights = [1 / n] * n if stage_weights is None else [float(w) for w in stage_weights]
        self.projections = make_projections(self.student_channels, self.teacher_channels, projection, bias)
        self.projections.requires_grad_(train_projections)

    def terms(self, batch: Batch) -> list[Terms]:
        """See the base class."""
        check_features(batch.student_features, batch.teacher_features, self.student_channels, self.teacher_channels)
        label = self.label_of(batch)
        pairs = zip(batch.student_features, batch.teacher_features, strict=True)
        stages = []
        for i, (student, teacher) in enumerate(pairs):
            student, teacher = plain_tensor(student), plain_tensor(teacher.detach())
            dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
            terms = self.stage(i, student.to(dtype), teacher.to(dtype), label)
            stages.append({name: self.stage_weights[i] * term for name, term in terms.items()})
        return stages

    def label_of(self, batch: Batch) -> torch.Tensor | None:
        """The label as :meth:`stage` wants it, read once per call and after the features were checked."""
        return batch.label

    @abstractmethod
    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        """The unweighted terms of stage ``i`` from features (B, C_i, X_i, Y_i, Z_i) of one floating type."""


def _device_type(batch: Batch) -> str:
    for part in (batch.student_features, batch.student_output):
        if isinstance(part, torch.Tensor):
            return part.device.type
        if part:
            return part[0].device.type
    return "cpu"
