"""Lift student features to the teacher's width, a few channels at a time.

At full resolution a lifted feature is several times larger than the student's own, and most losses need several
tensors of that size. The losses here look at each teacher channel by itself, so that they can be computed group by
group and recomputed in the backward pass: only the student's feature is ever kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["channel_groups", "lift", "make_projections", "recompute", "seeded", "sum_over_channels"]

Result = TypeVar("Result")

# Elements of a group of channels: large enough to keep a device busy, small next to a feature of the finest stage.
_GROUP_ELEMENTS = 1 << 24


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw initial values from ``seed`` and leave the random state as it was.

    A run with distillation weight 0 must equal a plain run bit for bit.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators as well, which are not forked
        torch.default_generator.manual_seed(seed)
        yield


def make_projections(student: Sequence[int], teacher: Sequence[int], kind: str, bias: bool) -> nn.ModuleList:
    """One ``Conv3d(student, teacher, 1)`` per stage for ``kind`` "conv", else identities."""
    with seeded():
        return nn.ModuleList(
            nn.Conv3d(s, t, 1, bias=bias) if kind == "conv" else nn.Identity()
            for s, t in zip(student, teacher, strict=True)
        )


def lift(projection: nn.Module, x: torch.Tensor, channels: slice = slice(None)) -> torch.Tensor:
    """Channels of the projection of ``x`` (B, C_S, N), in the type of ``x``: (B, len(channels), N)."""
    if not isinstance(projection, nn.Conv3d):
        return x[:, channels]
    weight = projection.weight.flatten(1)[channels].to(x.dtype).expand(len(x), -1, -1)
    if projection.bias is None:
        return torch.bmm(weight, x)
    return torch.baddbmm(projection.bias[channels].to(x.dtype)[None, :, None], weight, x)


def channel_groups(x: torch.Tensor) -> list[slice]:
    """Split the channels of ``x`` (B, C, ...) into groups of bounded size."""
    size = max(1, _GROUP_ELEMENTS * x.shape[1] // max(1, x.numel()))
    return [slice(i, min(i + size, x.shape[1])) for i in range(0, x.shape[1], size)]


def recompute(function: Callable[..., Result], *arguments: Any) -> Result:
    """``function(*arguments)``, evaluated again in the backward pass instead of keeping what it computes on the way."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    result: Result = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result


def sum_over_channels(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    projection: nn.Module,
    student: torch.Tensor,
    teacher: torch.Tensor,
) -> torch.Tensor:
    """Sum of ``function`` over groups of channels.

    Args:
        function: called with the lifted student's and the teacher's channels, both (B, g, X, Y, Z).
        projection: as made by :func:`make_projections`.
        student: (B, C_S, X, Y, Z).
        teacher: (B, C_T, X, Y, Z).
    """
    grid = teacher.shape[2:]

    def group(x: torch.Tensor, channels: slice) -> torch.Tensor:
        return function(lift(projection, x.flatten(2), channels).unflatten(2, grid), teacher[:, channels])

    return torch.stack([recompute(group, student, channels) for channels in channel_groups(teacher)]).sum(0)
