"""The mean squared wavelet detail of an error volume: reference implementation, which supports all options."""

from collections.abc import Sequence

import torch

from dcd_ext.wavelets.bands import KEYS, Term, kept_terms
from dcd_ext.wavelets.projection import DetailProjection, coefficients


def detail_error(
    error: torch.Tensor,
    wavelet: str,
    levels: int,
    mode: str,
    keys: Sequence[str],
    reconstruct: bool = True,
    level_reduction: str = "joint",
) -> torch.Tensor:
    """Mean square of the kept subbands of ``error`` (B, C, D, H, W), a scalar; see :class:`DCDLoss` for the options."""
    if level_reduction == "per_level":
        grids = [error]
        grids += [coefficients(error, wavelet, mode, Term(j, KEYS[0])) for j in range(1, levels)]
        # Each level is a one-level transform of its own grid, the approximation of the finer one.
        return torch.stack([detail_error(grid, wavelet, 1, mode, keys, reconstruct) for grid in grids]).mean()
    if reconstruct:
        return DetailProjection(wavelet, levels, mode, keys)(error).square().mean()
    bands = [coefficients(error, wavelet, mode, term) for term in kept_terms(keys, levels)]
    return torch.stack([band.square().sum() for band in bands]).sum() / sum(band.numel() for band in bands)
