"""The loss of Detail Consistent Distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dcd_ext.losses._checks import check_channels, check_features, check_options
from dcd_ext.losses._projections import make_projection, mixing, project
from dcd_ext.tensors import plain_tensor
from dcd_ext.wavelets.axis_maps import check_wavelet, max_levels
from dcd_ext.wavelets.bands import parse_bands
from dcd_ext.wavelets.energy.engine import detail_energy, make_engine
from dcd_ext.wavelets.energy.reference import detail_error

__all__ = ["DCDLoss"]


class DCDLoss(nn.Module):
    """Make the student's directional wavelet details equal to the teacher's, at every encoder stage.

    ``sum over stages i of mean (D_J(phi_i(F_i^S)) - D_J(F_i^T))^2``, where ``phi_i`` is a trained 1×1×1 convolution to
    the teacher's width and ``D_J`` keeps the six mixed subbands of J wavelet levels (Detail Consistent Distillation,
    arXiv 2605.26382, Eq. 6). ``D_J`` is linear, so the difference is projected once.

    Computed in float32 outside autocast whatever the features' type (float64 stays), and never in the teacher's graph.

    Args:
        student_channels: the student's channels per stage.
        teacher_channels: the teacher's.
        wavelet: name of a discrete wavelet of PyWavelets.
        levels: wavelet levels J.
        mode: border extension: zero, symmetric, reflect, periodic or constant. "zero" is several times faster.
        bands: what to compare, see :class:`dcd_ext.wavelets.DetailProjection`.
        reconstruct: compare volumes; False: the mean squared difference of all kept coefficients ("w/o IDWT").
        level_reduction: "joint", or "per_level": the average over the levels j of one MSE each, of a one-level
            projection on the grid of LLL_(j-1) (what the authors' released code does, with correct filters here).
        cap_levels: limit J per stage by PyWavelets' rule for its shortest side, but to no less than 1.
        projection: "conv", or "identity" for equal channels: no ``phi_i``.
        train_projections: False freezes the ``phi_i`` as they are drawn.

    Attributes:
        projections: the ``phi_i``; to be optimised, saved and clipped with the student. Drawn from a seed of their
            own, so that making the loss leaves every random state alone.
        stage_losses: after a call, one detached scalar per stage.
        stage_levels: after a call, the levels J used per stage.

    Raises:
        UserError: for unusable options, and when called with features that do not fit.

    Example:
        >>> loss = DCDLoss([2, 4], [8, 16], wavelet="haar", levels=1)
        >>> student = [torch.rand(1, 2, 8, 8, 8), torch.rand(1, 4, 4, 4, 4)]
        >>> teacher = [torch.rand(1, 8, 8, 8, 8), torch.rand(1, 16, 4, 4, 4)]
        >>> loss(student, teacher).shape, len(loss.stage_losses)
        (torch.Size([]), 2)
    """

    # what DistillationHandler asks every loss
    needs_features = True
    needs_teacher_output = False
    needs_label = False

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        wavelet: str = "db4",
        levels: int = 3,
        mode: str = "zero",
        bands: str | Sequence[str] = "directional",
        reconstruct: bool = True,
        level_reduction: str = "joint",
        cap_levels: bool = True,
        *,
        projection: str = "conv",
        train_projections: bool = True,
    ) -> None:
        super().__init__()
        check_wavelet(wavelet, levels, mode)
        check_options(level_reduction, projection)
        check_channels(student_channels, teacher_channels, projection)
        self.student_channels, self.teacher_channels = tuple(student_channels), tuple(teacher_channels)
        self.wavelet, self.levels, self.mode, self.keys = wavelet, levels, mode, parse_bands(bands)
        self.reconstruct, self.level_reduction, self.cap_levels = reconstruct, level_reduction, cap_levels
        generator = torch.Generator().manual_seed(0)
        channels = zip(self.student_channels, self.teacher_channels, strict=True)
        self.projections = nn.ModuleList(make_projection(s, t, projection, generator) for s, t in channels)
        self.projections.requires_grad_(train_projections)
        self.stage_losses: list[torch.Tensor] = []
        self.stage_levels: list[int] = []

    def forward(
        self,
        student_features: Sequence[torch.Tensor],
        teacher_features: Sequence[torch.Tensor],
        student_output: Any = None,
        teacher_output: Any = None,
        label: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss, a scalar.

        Args:
            student_features: one tensor (B, C_i^S, D_i, H_i, W_i) per stage.
            teacher_features: one tensor (B, C_i^T, D_i, H_i, W_i) per stage; no gradient flows to them.
            student_output: not looked at; here, as the next two, because all losses are called alike.
            teacher_output: not looked at.
            label: not looked at.

        Raises:
            UserError: if the number of stages, a stage's channels, batch or grid do not fit.
        """
        check_features(student_features, teacher_features, self.student_channels, self.teacher_channels)
        stages = zip(student_features, teacher_features, self.projections, strict=True)
        self.stage_levels = [self._levels_of(f) for f in student_features]
        losses = [self._stage(f, t, p, j) for (f, t, p), j in zip(stages, self.stage_levels, strict=True)]
        self.stage_losses = [loss.detach() for loss in losses]
        return torch.stack(losses).sum()

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"wavelet={self.wavelet!r}, levels={self.levels}, mode={self.mode!r}, bands={self.keys}"

    def _levels_of(self, feature: torch.Tensor) -> int:
        limit = max_levels(min(feature.shape[-3:]), self.wavelet) if self.cap_levels else self.levels
        return min(self.levels, limit)

    def _stage(self, student: torch.Tensor, teacher: torch.Tensor, projection: nn.Module, levels: int) -> torch.Tensor:
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = plain_tensor(student), plain_tensor(teacher.detach())
            dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
            options = (self.wavelet, levels, self.mode, self.keys)
            sides = (student.shape[2], student.shape[3], student.shape[4])
            engine = make_engine(sides, *options, student.device, dtype) if self._is_one_projection() else None
            if engine is not None:
                return detail_energy(student, *mixing(projection, student, dtype), teacher, engine)
            error = project(student.to(dtype), projection) - teacher.to(dtype)
            return detail_error(error, *options, self.reconstruct, self.level_reduction)

    def _is_one_projection(self) -> bool:
        return self.reconstruct and self.level_reduction == "joint"
