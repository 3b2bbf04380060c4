"""The 3D Haar wavelet transform by slicing: one level splits each 2×2×2 block into its eight coefficients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["haar_levels", "join", "split"]

_SCALE = 1 / math.sqrt(2)
_AXES = (2, 3, 4)


def haar_levels(grid: Sequence[int], levels: int) -> int:
    """How many levels fit: at most ``levels``, and none that would halve a single voxel."""
    return min(levels, min(grid).bit_length() - 1)


def split(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One level of ``x`` (B, C, X, Y, Z): the approximation and the seven details aad, ada, ..., ddd.

    Each is (B, C, ceil(X/2), ceil(Y/2), ceil(Z/2)); odd sides are extended by repeating the last plane.
    """
    bands = [x]
    for axis in _AXES:
        bands = [half for band in bands for half in _halves(band, axis)]
    return bands[0], bands[1:]


def join(low: torch.Tensor, details: Sequence[torch.Tensor], grid: Sequence[int]) -> torch.Tensor:
    """The inverse of :func:`split`, cropped to ``grid``: (B, C, X, Y, Z)."""
    bands = [low, *details]
    for axis in reversed(_AXES):
        pairs = zip(bands[::2], bands[1::2], strict=True)
        bands = [torch.stack(((a + d) * _SCALE, (a - d) * _SCALE), axis + 1).flatten(axis, axis + 1) for a, d in pairs]
    x, y, z = grid
    return bands[0][..., :x, :y, :z]


def _halves(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    if x.shape[axis] % 2:
        # not F.pad: its gradient is not deterministic on GPUs
        x = torch.cat((x, x.narrow(axis, x.shape[axis] - 1, 1)), axis)
    even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
    return (even + odd) * _SCALE, (even - odd) * _SCALE
