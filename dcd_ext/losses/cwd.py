"""Channel-wise distillation: every channel's map is a distribution over the voxels."""

from collections.abc import Sequence

import torch
from torch import nn

from dcd_ext.errors import UserError
from dcd_ext.losses._labels import one_hot, read_label
from dcd_ext.losses._options import check_choice, check_number
from dcd_ext.losses._projections import over_slabs, project, slab_size
from dcd_ext.losses.base import FeatureLoss, LossInputs, Terms
from dcd_ext.losses.logits import logit_pairs


class CWDLoss(FeatureLoss):
    """``T² / (B C) · sum over samples and channels of KL(phi(y^T) || phi(y^S))``, ``phi`` = softmax over voxels of y/T.

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, and their code.
    Certain: the equation, and temperature 4 with weight 3 for logits. Not published: the variant behind the DCD
    paper's row "CWD". Its authors' later framework squares differences instead (``divergence="mse_preset"``:
    ``T² / (B C^S) · sum (phi(y^T) - phi(y^S))²``, the student's width as divisor); this is of order 1 / voxels, in
    practice no distillation, and kept only to replicate it. Inferred: temperature and weights for encoder features.

    Args:
        on: "features", or "logits": the finest output, as the paper's main recipe.
        temperature: T > 0; None: 4 on logits, 1 on features.
        divergence: "kl" or "mse_preset".
        present_only: on logits, compare only the channels of classes that the label of the sample holds (an extension
            of ours: the map of an absent class is noise); the mean is over these.

    Other arguments and errors: see :class:`~dcd_ext.losses.base.FeatureLoss`; ``on="logits"`` needs none
    of them.
    """

    def __init__(
        self,
        student_channels: Sequence[int] = (),
        teacher_channels: Sequence[int] = (),
        on: str = "features",
        temperature: float | None = None,
        divergence: str = "kl",
        present_only: bool = False,
        *,
        stage_weights: Sequence[float] | None = None,
        projection: str = "conv",
        train_projections: bool = True,
    ) -> None:
        check_choice("on", on, ("features", "logits"))
        check_choice("divergence", divergence, ("kl", "mse_preset"))
        is_logits = on == "logits"
        if is_logits:
            # the output is one stage without a projection
            student_channels, teacher_channels, projection, stage_weights = [1], [1], "identity", None
        elif present_only:
            raise UserError("features have no classes", "present_only", False, True, "set on='logits', or drop it")
        super().__init__(student_channels, teacher_channels, stage_weights, projection, False, train_projections)
        self.temperature = temperature if temperature is not None else (4.0 if is_logits else 1.0)
        check_number("temperature", self.temperature)
        self.on, self.divergence, self.present_only = on, divergence, present_only
        self.needs_features, self.needs_teacher_output, self.needs_label = not is_logits, is_logits, present_only

    def terms(self, inputs: LossInputs) -> list[Terms]:
        """On logits, the one stage is the finest output."""
        if self.on == "features":
            return super().terms(inputs)
        ((student, teacher),) = logit_pairs(inputs.student_output, inputs.teacher_output)
        if not self.present_only:
            return [self.stage(0, student, teacher, None)]
        b, k = student.shape[:2]
        present = one_hot(read_label(inputs.label, b, k), k, student.dtype).amax(2)
        divergence = self._divergence(nn.Identity(), student, teacher) * present
        return [{self.divergence: divergence.sum() / present.sum().clamp_min(1)}]

    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        total = self._divergence(self.projections[i], student, teacher).sum()
        # the preset divides by the student's width even where it was projected to the teacher's
        channels = (student if self.divergence == "mse_preset" else teacher).shape[1]
        return {self.divergence: total / (len(teacher) * channels)}

    def _divergence(self, projection: nn.Module, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """T² times the divergence per sample and channel (B, C) of maps (B, C_S, X, Y, Z) and (B, C, X, Y, Z)."""
        t = self.temperature
        x, y = student.flatten(2), teacher.flatten(2)
        target = torch.stack([z.div(t).logsumexp(2) for z in y.split(slab_size(y), 2)]).logsumexp(0)

        def normaliser(s: torch.Tensor, _z: torch.Tensor) -> torch.Tensor:
            return project(projection, s).div(t).logsumexp(2)

        def cross(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            # sum p (log p - log q) without the two normalisers
            p = (z / t - target[:, :, None]).exp()
            return (p * (z - project(projection, s))).sum(2) / t

        log_sum = torch.stack(over_slabs(normaliser, x, y)).logsumexp(0)
        if self.divergence == "kl":
            return t**2 * (torch.stack(over_slabs(cross, x, y)).sum(0) + log_sum - target)

        def squares(s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            p, q = (z / t - target[:, :, None]).exp(), (project(projection, s) / t - log_sum[:, :, None]).exp()
            return (q - p).square().sum(2)

        return t**2 * torch.stack(over_slabs(squares, x, y)).sum(0)
