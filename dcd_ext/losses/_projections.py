"""Project student features to the teacher's width, one slab of voxels at a time.

At full resolution a projected feature is several times larger than the student's own, and most losses need several
tensors of that size. Slabs are computed again in the backward pass, so that only the student's feature is stored,
and each slab stays in cache.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dcd_ext.networks import seeded

Result = TypeVar("Result")

# Elements of a slab over all channels: enough to keep a device busy, small next to a feature of the finest stage.
_SLAB_ELEMENTS = 1 << 22
# recompute(function, *arguments): evaluated again in the backward pass instead of storing intermediate results
recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


def make_projections(student: Sequence[int], teacher: Sequence[int], kind: str, bias: bool) -> nn.ModuleList:
    """One ``Conv3d(student, teacher, 1)`` per stage for ``kind`` "conv", else identities."""
    with seeded():
        return nn.ModuleList(
            nn.Conv3d(s, t, 1, bias=bias) if kind == "conv" else nn.Identity()
            for s, t in zip(student, teacher, strict=True)
        )


def project(projection: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The projection (B, C_T, N) of ``x`` (B, C_S, N), in the type of ``x``."""
    if not isinstance(projection, nn.Conv3d):
        return x
    weight = projection.weight.flatten(1).to(x.dtype).expand(len(x), -1, -1)
    if projection.bias is None:
        return torch.bmm(weight, x)
    return torch.baddbmm(projection.bias.to(x.dtype)[None, :, None], weight, x)


def weight_and_bias(
    projection: nn.Module, student: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (C_T, C_S) and bias (C_T), as ``dtype``, of the projection of ``student`` (B, C_S, ...)."""
    if not isinstance(projection, nn.Conv3d):
        weight = torch.eye(student.shape[1], dtype=dtype, device=student.device)
    else:
        weight = projection.weight.flatten(1).to(dtype)
    bias = getattr(projection, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.to(dtype)


def slab_size(x: torch.Tensor, dim: int = 2, multiple: int = 1) -> int:
    """Length along ``dim`` of a slab of ``x`` (B, C, ...) of bounded size, a multiple of ``multiple``."""
    unit = max(1, x.numel() // x.shape[dim]) * multiple
    return multiple * max(1, _SLAB_ELEMENTS // unit)


def over_slabs(
    function: Callable[[torch.Tensor, torch.Tensor], Result], student: torch.Tensor, teacher: torch.Tensor
) -> list[Result]:
    """``function`` of every slab of voxels of ``student`` (B, C_S, N) and ``teacher`` (B, C_T, N), recomputed backward.

    A loss that needs only sums over voxels never stores a whole projected feature.
    """
    size = slab_size(teacher)
    slabs = zip(student.split(size, 2), teacher.split(size, 2), strict=True)
    return [recompute(function, s, t) for s, t in slabs]
