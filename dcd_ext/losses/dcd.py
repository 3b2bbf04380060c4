"""The loss of Detail Consistent Distillation."""

from collections.abc import Sequence

import torch

from dcd_ext.losses._options import check_choice
from dcd_ext.losses._projections import weight_and_bias
from dcd_ext.losses.base import FeatureLoss, Terms, compute_dtype
from dcd_ext.wavelets.axis_maps import check_wavelet, max_levels
from dcd_ext.wavelets.bands import Transform, parse_bands
from dcd_ext.wavelets.energy import LastShare, detail_energy


class DCDLoss(FeatureLoss):
    """Mean squared difference of the directional wavelet details of student and teacher, summed over encoder stages.

    ``sum over stages i of mean (D_J(phi_i(F_i^S)) - D_J(F_i^T))²``, where ``phi_i`` is a trained 1×1×1 convolution to
    the teacher's width and ``D_J`` keeps the six mixed subbands of J wavelet levels (Detail Consistent Distillation,
    arXiv 2605.26382, Eq. 6).

    Args:
        wavelet: name of a discrete wavelet of PyWavelets.
        levels: wavelet levels J.
        mode: border extension: zero, symmetric, reflect, periodic or constant. "zero" is several times faster.
        bands: what to compare, see :class:`dcd_ext.wavelets.DetailProjection`.
        reconstruct: compare volumes; False: the mean squared difference of all kept coefficients ("w/o IDWT").
        level_reduction: "joint", or "per_level": the average over the levels j of one MSE each, of a one-level
            projection on the grid of LLL_(j-1) (what the authors' released code does, with correct filters here).
        cap_levels: limit J per stage by PyWavelets' rule for its shortest side, but to no less than 1.
        normalize: "teacher" divides each stage's error by the detail energy ``mean D_J(F_i^T)²`` of the batch, so that
            stages contribute equally; None: Eq. 6.
        engine: "fast", or "reference": the same values by the implementation in ``wavelets/energy/reference.py``.

    Other arguments and errors: see :class:`~dcd_ext.losses.base.FeatureLoss`; the ``phi_i`` have a bias.

    Attributes:
        stage_levels: after a call, the levels J used per stage.

    Example:
        >>> loss = DCDLoss([2, 4], [8, 16], wavelet="haar", levels=1)
        >>> student = [torch.rand(1, 2, 8, 8, 8), torch.rand(1, 4, 4, 4, 4)]
        >>> teacher = [torch.rand(1, 8, 8, 8, 8), torch.rand(1, 16, 4, 4, 4)]
        >>> loss(student, teacher).shape, len(loss.stage_losses)
        (torch.Size([]), 2)
    """

    # the wide error is made slab by slab: no float32 copy of half-precision teacher features
    takes_half_precision = True

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
        normalize: str | None = None,
        engine: str = "fast",
    ) -> None:
        ones = [1.0] * len(student_channels)
        super().__init__(student_channels, teacher_channels, ones, projection, True, train_projections, normalize)
        check_wavelet(wavelet, levels, mode)
        check_choice("level_reduction", level_reduction, ("joint", "per_level"))
        check_choice("engine", engine, ("fast", "reference"))
        self.wavelet, self.levels, self.mode, self.keys = wavelet, levels, mode, parse_bands(bands)
        self.reconstruct, self.level_reduction, self.cap_levels = reconstruct, level_reduction, cap_levels
        self.engine = engine
        self.stage_levels = [0] * len(self.teacher_channels)
        self._last = [LastShare() for _ in ones]

    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        """Eq. 6 at stage ``i``: ``mean D(W F^S + b - F^T)²``, one projection because ``D`` is linear."""
        weight, bias = weight_and_bias(self.projections[i], student, compute_dtype(student, teacher))
        limit = max_levels(min(student.shape[2:]), self.wavelet) if self.cap_levels else self.levels
        self.stage_levels[i] = min(self.levels, limit)
        return {"detail": self._energy(i, student, weight, bias, teacher, self._last[i])}

    def teacher_energy(self, i: int, teacher: torch.Tensor) -> torch.Tensor:
        """``mean D(F^T)²``: the loss of a student whose projection is zero. A divisor is waited for to be precise."""
        weight = teacher.new_zeros(teacher.shape[1], 1, dtype=compute_dtype(teacher, teacher))
        return self._energy(i, teacher[:, :1], weight, weight[:, 0], teacher, None)

    def _energy(
        self,
        i: int,
        student: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        teacher: torch.Tensor,
        last: LastShare | None,
    ) -> torch.Tensor:
        transform = Transform(self.wavelet, self.stage_levels[i], self.mode, self.keys)
        options = (self.reconstruct, self.level_reduction, self.engine == "reference", last)
        return detail_energy(student, weight, bias, teacher, transform, *options)

    def extra_repr(self) -> str:
        return f"wavelet={self.wavelet!r}, levels={self.levels}, mode={self.mode!r}, bands={self.keys}"
