"""Base classes of distillation losses: one signature, one scalar, named terms for the log."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from dcd_ext.errors import UserError
from dcd_ext.losses._options import check_choice, check_number
from dcd_ext.losses._projections import make_projections
from dcd_ext.tensors import plain_tensor

Terms = dict[str, torch.Tensor]
Output = torch.Tensor | Sequence[torch.Tensor] | None

# lower bound of the teacher's energy, for normalize="teacher"
_SMALLEST_ENERGY = 1e-8
# features that cannot be compared
_STEP = "name one pair of modules of equal grid per stage, with their channels: 'taps', 'teacher_taps', 'kd_loss_def'"


class LossInputs(NamedTuple):
    """The arguments of a call; see :meth:`DistillationLoss.forward`."""

    student_features: Sequence[torch.Tensor]
    teacher_features: Sequence[torch.Tensor]
    student_output: Output
    teacher_output: Output
    label: torch.Tensor | None


class DistillationLoss(nn.Module, ABC):
    """A loss between a student and its frozen teacher; all its trained parameters belong to this module.

    Computed outside autocast in float32 (float64 stays); no gradient reaches the teacher's side.

    Attributes:
        needs_features: whether the two lists of features are used.
        needs_teacher_output: whether the teacher has to run to its end.
        needs_label: whether the label is used.
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
            student_features, teacher_features: one tensor (B, C_i, X_i, Y_i, Z_i) per stage; empty if not needed.
            student_output, teacher_output: logits (B, K, X, Y, Z), or the deep supervision list, the finest first.
            label: (B, 1, X, Y, Z), class numbers from 0.

        Raises:
            ValueError: if something needed is missing or shapes do not fit.
        """
        inputs = LossInputs(student_features, teacher_features, student_output, teacher_output, label)
        outputs = [student_output] if isinstance(student_output, torch.Tensor) else student_output or []
        device_type = next((tensor.device.type for tensor in (*student_features, *outputs)), "cpu")
        with torch.autocast(device_type, enabled=False):
            stages = self.terms(inputs)
            totals = [torch.stack(list(stage.values())).sum() for stage in stages]
            loss = torch.stack(totals).sum()
        self.stage_losses = tuple(total.detach() for total in totals)
        names = dict.fromkeys(name for stage in stages for name in stage)
        self.components = {n: torch.stack([s[n].detach() for s in stages if n in s]).sum() for n in names}
        return loss

    @abstractmethod
    def terms(self, inputs: LossInputs) -> list[Terms]:
        """Per stage the weighted terms of the loss by name; the loss is the sum of them all."""


class FeatureLoss(DistillationLoss):
    """A loss that compares features stage by stage; the equation of one stage is in :meth:`stage`.

    Args:
        student_channels, teacher_channels: their channels per stage.
        stage_weights: weight per stage; None: 1 / number of stages.
        projection: "conv": a trained 1×1×1 convolution per stage to the teacher's width; "identity": none, for equal
            widths.
        bias: whether the convolutions have one.
        train_projections: False freezes them at their initial values.
        normalize: "teacher" divides each stage's terms by :meth:`teacher_energy`, so that stages whose
            features differ in magnitude contribute equally; None: no normalisation.

    Raises:
        UserError: for unusable options.
        ValueError: when called with features, outputs or a label that do not fit.
    """

    # whether student and teacher features are brought to a common width
    projects: bool = True
    # whether stage() takes half-precision features as they are, to convert them slab by slab
    takes_half_precision: bool = False

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        stage_weights: Sequence[float] | None = None,
        projection: str = "conv",
        bias: bool = False,
        train_projections: bool = True,
        normalize: str | None = None,
    ) -> None:
        super().__init__()
        check_choice("projection", projection, ("conv", "identity"))
        check_choice("normalize", normalize, (None, "teacher"))
        self.student_channels, self.teacher_channels = tuple(student_channels), tuple(teacher_channels)
        n = len(self.student_channels)
        if n != len(self.teacher_channels) or n == 0:
            found = f"{n} and {len(self.teacher_channels)}"
            raise UserError(f"student and teacher need the same stages, got {found}", "channels", next_step=_STEP)
        if self.projects and projection == "identity" and self.student_channels != self.teacher_channels:
            widths = f"{self.student_channels} and {self.teacher_channels}"
            raise UserError("widths differ", "projection 'identity'", "equal ones", widths, "set projection to 'conv'")
        self.stage_weights = [1 / n] * n if stage_weights is None else [float(w) for w in stage_weights]
        if len(self.stage_weights) != n:
            raise ValueError(f"stage_weights needs {n} numbers, one per stage, got {len(self.stage_weights)}")
        for weight in self.stage_weights:
            check_number("every stage weight", weight, inclusive=True)
        kind = projection if self.projects else "identity"
        self.projections = make_projections(self.student_channels, self.teacher_channels, kind, bias)
        self.projections.requires_grad_(train_projections)
        self.normalize = normalize

    def terms(self, inputs: LossInputs) -> list[Terms]:
        self._check_features(inputs)
        label = self.label_of(inputs)
        stages = []
        for i, pair in enumerate(zip(inputs.student_features, inputs.teacher_features, strict=True)):
            student, teacher = plain_tensor(pair[0]), plain_tensor(pair[1].detach())
            if not self.takes_half_precision:
                dtype = compute_dtype(student, teacher)
                student, teacher = student.to(dtype), teacher.to(dtype)
            terms, weight = self.stage(i, student, teacher, label), self.stage_weights[i]
            if self.normalize == "teacher":
                with torch.no_grad():
                    energy = self.teacher_energy(i, teacher).clamp_min(_SMALLEST_ENERGY)
                terms = {name: term / energy for name, term in terms.items()}
            stages.append({name: weight * term for name, term in terms.items()})
        return stages

    def label_of(self, inputs: LossInputs) -> torch.Tensor | None:
        """The label in the form that :meth:`stage` needs, read once per call, after the features were checked."""
        return inputs.label

    @abstractmethod
    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        """The unweighted terms of stage ``i`` from features (B, C_i, X_i, Y_i, Z_i) of one floating type."""

    def teacher_energy(self, i: int, teacher: torch.Tensor) -> torch.Tensor:
        """The divisor of stage ``i`` for ``normalize="teacher"``: the loss of a student whose projection is zero."""
        return teacher.square().mean()

    def _check_features(self, inputs: LossInputs) -> None:
        student = ("student", inputs.student_features, self.student_channels)
        teacher = ("teacher", inputs.teacher_features, self.teacher_channels)
        for name, features, widths in (student, teacher):
            if len(features) != len(widths):
                what = f"the loss was made for {len(widths)} stages, got {len(features)} {name} features"
                raise UserError(what, "taps", next_step=_STEP)
            for i, (feature, width) in enumerate(zip(features, widths, strict=True)):
                if feature.ndim != 5 or feature.shape[1] != width:
                    expected, found = f"(B, {width}, X, Y, Z)", tuple(feature.shape)
                    what = f"{name} feature of stage {i} must have shape {expected}, got {found}"
                    raise UserError(what, "taps", next_step=_STEP)
        for i, (s, t) in enumerate(zip(inputs.student_features, inputs.teacher_features, strict=True)):
            grids = [(len(x), *x.shape[2:]) for x in (s, t)]
            if grids[0] != grids[1]:
                what = f"stage {i}: student and teacher differ in batch or grid, {grids[0]} and {grids[1]}"
                raise UserError(what, "taps", next_step=_STEP)


def compute_dtype(student: torch.Tensor, teacher: torch.Tensor) -> torch.dtype:
    """The common floating type of both, at least float32."""
    return torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
