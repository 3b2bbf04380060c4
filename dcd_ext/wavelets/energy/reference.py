"""The mean squared wavelet detail of an error volume: reference implementation, which supports all options."""

import torch

from dcd_ext.wavelets.bands import KEYS, Term, Transform, kept_terms
from dcd_ext.wavelets.projection import DetailProjection, coefficients


def detail_error(
    error: torch.Tensor, transform: Transform, reconstruct: bool = True, level_reduction: str = "joint"
) -> torch.Tensor:
    """Mean square of the kept subbands of ``error`` (B, C, D, H, W), a scalar; see :class:`DCDLoss` for the options."""
    wavelet, levels, mode, keys = transform
    if level_reduction == "per_level":
        grids = [error]
        grids += [coefficients(error, wavelet, mode, Term(j, KEYS[0])) for j in range(1, levels)]
        # Each level is a one-level transform of its own grid, the approximation of the finer one.
        single = transform._replace(levels=1)
        return torch.stack([detail_error(grid, single, reconstruct) for grid in grids]).mean()
    if reconstruct:
        return DetailProjection(*transform)(error).square().mean()
    bands = [coefficients(error, wavelet, mode, term) for term in kept_terms(keys, levels)]
    return torch.stack([band.square().sum() for band in bands]).sum() / sum(band.numel() for band in bands)
