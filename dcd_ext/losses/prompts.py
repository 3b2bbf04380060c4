"""Frequency prompts: soft masks over the teacher's coefficients of a 3D Haar transform, by ptwt."""

import os
from collections.abc import Sequence
from typing import Any

import ptwt
import torch

from dcd_ext.errors import UserError
from dcd_ext.weights import read_checkpoint

# what a file of prompts says of itself
FORMAT = "freekd_prompts"
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


def mean_masks(prompt: torch.Tensor, teacher: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Per level, from the finest, the mask averaged over the tokens: (B, 1, X_j, Y_j, Z_j).

    ``sigmoid(P_j · D_j)``, ``D_j`` being the sum of the level's seven details. The masks only scale a difference, so
    that their mean gives the same loss as one term per token. Entry 0 of ``prompt`` (J + 1, T, C) is for the
    approximation and not used; ``teacher`` is (B, C, X, Y, Z).
    """
    masks, low = [], teacher
    with torch.no_grad():
        for j in range(levels):
            low, details = split(low)
            masks.append(_masks(prompt[j + 1], torch.stack(details).sum(0)).mean(1, keepdim=True))
    return masks


def masked_reconstruction(prompt: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` (B, C, X, Y, Z) after masking by every token, summed over the tokens, and the overlap of their masks.

    The volume is reconstructed from the masked coefficients of all bands; the overlap is the mean over the bands of
    the mean soft Dice between the masks of different tokens.
    """
    dtype = x.dtype
    low, kept, grids, overlaps = x.float() if dtype.itemsize < 4 else x, [], [], []
    for j in range(haar_levels(x.shape[2:], len(prompt) - 1)):
        grids.append(low.shape[2:])
        low, details = split(low)
        masks = _masks(prompt[j + 1], torch.stack(details).sum(0))
        overlaps.append(_overlap(masks))
        kept.append([d * masks.sum(1, keepdim=True) for d in details])
    masks = _masks(prompt[0], low)
    overlaps.append(_overlap(masks))
    low = low * masks.sum(1, keepdim=True)
    for details, grid in zip(reversed(kept), reversed(grids), strict=True):
        low = join(low, details, grid)
    return low.to(dtype), torch.stack(overlaps).mean()


def _masks(tokens: torch.Tensor, band: torch.Tensor) -> torch.Tensor:
    """Sigmoid (B, T, X, Y, Z) of the products of tokens (T, C) and a band (B, C, X, Y, Z)."""
    weight = tokens.to(band.dtype).expand(len(band), -1, -1)
    return torch.bmm(weight, band.flatten(2)).unflatten(2, band.shape[2:]).sigmoid()


def _overlap(masks: torch.Tensor) -> torch.Tensor:
    """Mean soft Dice of masks (B, T, ...) of different tokens; 0 for a single one."""
    flat = masks.flatten(2)
    products = torch.bmm(flat, flat.mT)
    squares = products.diagonal(dim1=1, dim2=2)
    # two masks that are zero everywhere are not alike
    dice = 2 * products / (squares[:, :, None] + squares[:, None, :]).clamp_min(1e-8)
    pairs = dice.shape[1] * (dice.shape[1] - 1)
    return (dice.sum((1, 2)) - dice.diagonal(dim1=1, dim2=2).sum(1)).mean() / max(pairs, 1)


def load_prompts(path: str, channels: Sequence[int], levels: int) -> list[torch.Tensor]:
    """Prompts (J + 1, T, C_i) of all stages from a file; others than for ``channels`` and ``levels`` are refused."""
    next_step = "tune the prompts for this teacher and these taps first: the same command with 'run tune_prompts'"
    if not os.path.isfile(path):
        raise UserError("tuned prompts not found", path, "a file", "none", f"{next_step}, or set prompts='none'")
    state = read_checkpoint(path, next_step)
    if state.get("format") != FORMAT:
        raise UserError("not a file of prompts", path, f"the format {FORMAT!r}", state.get("format"), next_step)
    prompts = list(state["prompts"])
    found = [(len(p), p.shape[-1]) for p in prompts]
    expected = [(levels + 1, c) for c in channels]
    if found != expected:
        wanted = f"(levels + 1, channels) {expected} per stage"
        raise UserError("prompts do not fit", path, wanted, found, next_step)
    return prompts
