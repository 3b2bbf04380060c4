"""Sums over a projected feature that region and attention losses need, slab by slab."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from dcd_ext.losses._projections import over_slabs, project, slab_size


class Moments(NamedTuple):
    """What is kept of a projected student feature p (B, C, N) and its error e = p - teacher.

    Attributes:
        spatial: mean over channels of |p|, (B, N).
        channel: mean over voxels of |p|, (B, C).
        error: mean over voxels of e, (B, C).
        square: mean over voxels of e², (B, C).
        weighted: sum over channels of channel weight times e², (B, N).
    """

    spatial: torch.Tensor
    channel: torch.Tensor
    error: torch.Tensor
    square: torch.Tensor
    weighted: torch.Tensor


def moments(
    projection: nn.Module, student: torch.Tensor, teacher: torch.Tensor, channel_weight: torch.Tensor
) -> Moments:
    """The moments of the projection of ``student`` (B, C_S, N) against ``teacher`` (B, C, N), without keeping it.

    Args:
        projection: from C_S to C channels.
        student: (B, C_S, N).
        teacher: (B, C, N).
        channel_weight: (B, C).
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
    return Moments(torch.cat(spatial, 1), channel, error, square, torch.cat(weighted, 1))


def magnitudes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of |x| (B, C, N) over channels (B, N) and over voxels (B, C), without a copy of ``x``."""
    pairs = [(s.mean(1), s.sum(2)) for s in (part.abs() for part in x.split(slab_size(x), 2))]
    spatial, channel = zip(*pairs, strict=True)
    return torch.cat(spatial, 1), torch.stack(channel).sum(0) / x.shape[2]


def attention(magnitude: torch.Tensor, temperature: float) -> torch.Tensor:
    """``n · softmax(magnitude / temperature)`` of (B, n): weights with mean 1."""
    return magnitude.shape[1] * (magnitude / temperature).softmax(1)


def foreground_background(label: torch.Tensor, num_classes: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Masks (B, N) of ``label`` (B, N): 1 / size of the voxel's foreground class in its sample, and of background.

    Every class present in a sample, background included, sums to 1 there; ignored voxels (-1) are in neither.
    """
    sizes = torch.stack([(label == k).sum(1) for k in range(num_classes)], 1)
    shares = (1 / sizes.clamp_min(1).to(dtype)).gather(1, label.clamp_min(0))
    zero = shares.new_zeros(())
    return torch.where(label > 0, shares, zero), torch.where(label == 0, shares, zero)
