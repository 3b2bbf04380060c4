"""Region- and context-aware distillation, in which every class present has equal weight."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from dcd_ext.losses._labels import LabelledFeatureLoss, nearest
from dcd_ext.losses._options import check_choice, check_number
from dcd_ext.losses._projections import over_slabs, project, slab_size
from dcd_ext.losses.base import Terms
from dcd_ext.networks import seeded

_TERMS = ("foreground", "background", "attention", "context")


class _Moments(NamedTuple):
    """Moments of a projected student feature p (B, C, N) and its error e = p - teacher."""

    spatial: torch.Tensor  # mean over channels of |p|, (B, N)
    channel: torch.Tensor  # mean over voxels of |p|, (B, C)
    error: torch.Tensor  # mean over voxels of e, (B, C)
    square: torch.Tensor  # mean over voxels of e², (B, C)
    weighted: torch.Tensor  # sum over channels of channel weight times e², (B, N)


class ReCoKDLoss(LabelledFeatureLoss):
    """``sum over stages of w_i · (R(foreground) + R(background) + attention + context)``, ``w_i`` ~ ``2^(-3 alpha i)``.

    With F^S the projected feature, ``S = N softmax_v(mean_c |F| / tau)``, ``A = C softmax_c(mean_v |F| / tau)``:

    - ``R(M) = sum M S^T A^T (F^S - F^T)² / (C sum M)``, M = 1 / size of the voxel's class in its sample: the
      attention-weighted error of each class present counts equally (MS-SARD);
    - attention: ``mean |A^S - A^T| + mean |S^S - S^T|`` (MS-SARD);
    - context: ``mean (F^S + t^S - F^T - t^T)²``, t a global context vector from a trained block per network (MS-CA).

    Source: "ReCo-KD: Region- and Context-Aware Knowledge Distillation", arXiv 2601.08301, 2026, after its authors' own
    port of a later framework; a 3D descendant of FGD (Yang et al., CVPR 2022). Certain: the terms of that port.
    Inferred: that they are the paper's equations, and which term carries which of its names. Its weights were not
    readable. The port trains none of these layers, so its context term is a plain MSE; here they are trained.

    Args:
        num_classes: K, background included.
        alpha: how fast the stage weights fall; they sum to 1.
        temperature: tau > 0 of the attention.
        coefficients: of "foreground", "background", "attention" and "context", 1 where not given.
        max_attention: limit for S^T in R; None: none. Above some hundred the loss looks at single voxels.
        ignore_label: label value to ignore in R; negative values are always ignored.

    Other arguments and errors: see :class:`~dcd_ext.losses.base.FeatureLoss`; ``train_projections``
    holds for the context blocks, too.

    Attributes:
        peak_attention: after a call, the largest S^T per stage.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        num_classes: int,
        alpha: float = 0.4,
        temperature: float = 0.5,
        coefficients: Mapping[str, float] | None = None,
        max_attention: float | None = None,
        ignore_label: int | None = None,
        *,
        projection: str = "conv",
        train_projections: bool = True,
    ) -> None:
        check_number("alpha", alpha, inclusive=True)
        check_number("temperature", temperature)
        if max_attention is not None:
            check_number("max_attention", max_attention)
        shares = [2 ** (-3 * alpha * i) for i in range(len(student_channels))]
        weights = [share / sum(shares) for share in shares]
        channels = (student_channels, teacher_channels)
        super().__init__(*channels, num_classes, ignore_label, weights, projection, train_projections)
        self.coefficients = dict.fromkeys(_TERMS, 1.0)
        for name, value in (coefficients or {}).items():
            check_choice("every key of coefficients", name, _TERMS)
            check_number(f"coefficients[{name!r}]", value, inclusive=True)
            self.coefficients[name] = float(value)
        self.temperature, self.max_attention = temperature, max_attention
        with seeded():
            self.student_context = nn.ModuleList(map(ContextBlock, self.teacher_channels))
            self.teacher_context = nn.ModuleList(map(ContextBlock, self.teacher_channels))
        self.student_context.requires_grad_(train_projections)
        self.teacher_context.requires_grad_(train_projections)
        self.peak_attention = [torch.zeros(()) for _ in self.teacher_channels]

    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        assert label is not None
        classes = nearest(label, teacher.shape[2:]).flatten(1)
        s, t, projection = student.flatten(2), teacher.flatten(2), self.projections[i]
        with torch.no_grad():
            spatial, channel = (_attention(x, self.temperature) for x in _magnitudes(t))
        self.peak_attention[i] = spatial.max()
        m = _moments(projection, s, t, channel)
        shift = self.student_context[i](s, projection) - self.teacher_context[i](t, nn.Identity())
        channel_error = (_attention(m.channel, self.temperature) - channel).abs().mean()
        spatial_error = (_attention(m.spatial, self.temperature) - spatial).abs().mean()
        weighted = m.weighted * (spatial if self.max_attention is None else spatial.clamp_max(self.max_attention))
        masks = _foreground_background(classes, self.num_classes, weighted.dtype)
        values = (
            # a mask's sum is the number of (sample, class) pairs present, at least 1 or 0
            *((mask * weighted).sum() / (t.shape[1] * mask.sum().clamp_min(1e-8)) for mask in masks),
            channel_error + spatial_error,
            # mean (e + shift)², shift being one number per channel
            (m.square + 2 * shift * m.error + shift.square()).mean(),
        )
        return {name: self.coefficients[name] * value for name, value in zip(_TERMS, values, strict=True)}


class ContextBlock(nn.Module):
    """Attention-pool a feature to one vector and transform it (the context block of GCNet and FGD).

    ``t(sum_v w_v F_v)`` with ``w = softmax_v(a · F_v)`` and t: linear C to C/2, normalisation, ReLU, linear C/2 to C.
    On one vector, 1×1×1 convolutions and a group norm of one group are linear layers and a layer norm. The last
    layer starts at zero, so that at first the context is zero. The attention has no bias: softmax would cancel it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 2)
        self.attention = nn.Linear(channels, 1, bias=False)
        nn.init.kaiming_normal_(self.attention.weight, nonlinearity="relu")
        last = nn.Linear(hidden, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)

    def forward(self, x: torch.Tensor, projection: nn.Module) -> torch.Tensor:
        """The transformed context (B, C) of the projection of ``x`` (B, C_x, N).

        Pooling and projection are both linear and the pooling weights sum to 1, so that the narrow ``x`` is pooled and
        the vector projected.
        """
        scores = self.attention.weight.to(x.dtype)
        if isinstance(projection, nn.Conv3d):
            scores = scores @ projection.weight.flatten(1).to(x.dtype)
        weights = torch.bmm(scores.expand(len(x), -1, -1), x).softmax(2)
        context = project(projection, torch.bmm(x, weights.mT))[:, :, 0]
        return self.transform(context.to(self.attention.weight.dtype)).to(x.dtype)


def _moments(
    projection: nn.Module, student: torch.Tensor, teacher: torch.Tensor, channel_weight: torch.Tensor
) -> _Moments:
    """The moments of the projection of ``student`` (B, C_S, N) against ``teacher`` (B, C, N), without keeping it.

    ``channel_weight`` is (B, C).
    """

    def slab(s: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p = project(projection, s)
        error = p - t
        square = error.square()
        weighted = torch.bmm(channel_weight[:, None], square)[:, 0]
        size = p.abs()
        return size.mean(1), weighted, size.sum(2), error.sum(2), square.sum(2)

    spatial, weighted, *sums = zip(*over_slabs(slab, student, teacher), strict=True)
    channel, error, square = (torch.stack(x).sum(0) / teacher.shape[2] for x in sums)
    return _Moments(torch.cat(spatial, 1), channel, error, square, torch.cat(weighted, 1))


def _magnitudes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of |x| (B, C, N) over channels (B, N) and over voxels (B, C), without a copy of ``x``."""
    pairs = [(s.mean(1), s.sum(2)) for s in (part.abs() for part in x.split(slab_size(x), 2))]
    spatial, channel = zip(*pairs, strict=True)
    return torch.cat(spatial, 1), torch.stack(channel).sum(0) / x.shape[2]


def _attention(magnitude: torch.Tensor, temperature: float) -> torch.Tensor:
    """``n · softmax(magnitude / temperature)`` of (B, n): weights with mean 1."""
    return magnitude.shape[1] * (magnitude / temperature).softmax(1)


def _foreground_background(label: torch.Tensor, num_classes: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Masks (B, N) of ``label`` (B, N): 1 / size of the voxel's foreground class in its sample, and of background.

    Every class present in a sample, background included, sums to 1 there; ignored voxels (-1) are in neither.
    """
    sizes = torch.stack([(label == k).sum(1) for k in range(num_classes)], 1)
    shares = (1 / sizes.clamp_min(1).to(dtype)).gather(1, label.clamp_min(0))
    zero = shares.new_zeros(())
    return torch.where(label > 0, shares, zero), torch.where(label == 0, shares, zero)
