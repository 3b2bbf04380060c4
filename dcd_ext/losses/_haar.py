"""One level of the 3D Haar wavelet transform, by ptwt: each 2×2×2 block becomes its eight coefficients."""

from collections.abc import Sequence
from typing import Any

import ptwt
import torch

_DETAILS = ("aad", "ada", "add", "daa", "dad", "dda", "ddd")


def haar_levels(grid: Sequence[int], levels: int) -> int:
    """How many levels fit: at most ``levels``, and none that would halve a single voxel."""
    return min(levels, min(grid).bit_length() - 1)


def split(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One level of ``x`` (B, C, X, Y, Z): the approximation and the seven details aad, ada, ..., ddd.

    Each is (B, C, ceil(X/2), ceil(Y/2), ceil(Z/2)); odd sides are extended by repeating the last plane.
    """
    for axis in (2, 3, 4):
        if x.shape[axis] % 2:
            # not ptwt's own extension: the gradient of F.pad is not deterministic on GPUs
            x = torch.cat((x, x.narrow(axis, x.shape[axis] - 1, 1)), axis)
    coefficients: Any = ptwt.wavedec3(x, "haar", mode="zero", level=1)
    return coefficients[0], [coefficients[1][key] for key in _DETAILS]


def join(low: torch.Tensor, details: Sequence[torch.Tensor], grid: Sequence[int]) -> torch.Tensor:
    """The inverse of :func:`split`, cropped to ``grid``: (B, C, X, Y, Z)."""
    x, y, z = grid
    return ptwt.waverec3((low, dict(zip(_DETAILS, details, strict=True))), "haar")[..., :x, :y, :z]
