"""Keep some subbands of a volume's wavelet transform and drop the others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from dcd_ext.tensors import plain_tensor
from dcd_ext.wavelets.axis_maps import axis_map, check_wavelet
from dcd_ext.wavelets.bands import Expansion, Term, expand, parse_bands

Factors = Sequence[torch.Tensor]
Maps = Sequence[tuple[Factors, Factors]]


class DetailProjection(nn.Module):
    """Wavelet decomposition, zeroing of all subbands but ``bands``, and reconstruction, as one linear map.

    With perfect reconstruction the map is ``x - sum of removed subbands' reconstructions`` (or the sum of the
    kept ones, if fewer), and each of these is a product of three one-axis maps, applied as small matrices.

    Args:
        wavelet: name of a discrete wavelet of PyWavelets.
        levels: number of levels, exactly; unlike the loss, this class does not limit it by the volume's size.
        mode: border extension: zero, symmetric, reflect, periodic or constant.
        bands: "directional" (the six mixed subbands of every level, what Detail Consistent Distillation keeps,
            arXiv 2605.26382, Sec. 2), "approximation" (LLL of the last level), "diagonal" (HHH of every level), "all",
            or ptwt keys such as ("aad", "daa"), one letter per axis (D, H, W).

    Raises:
        UserError: for an unknown wavelet, mode or band, or fewer than one level.

    Example:
        >>> project = DetailProjection("haar", levels=1)
        >>> project(torch.ones(1, 1, 4, 4, 4)).abs().max().item() < 1e-6
        True
    """

    def __init__(
        self, wavelet: str = "db4", levels: int = 3, mode: str = "zero", bands: str | Sequence[str] = "directional"
    ) -> None:
        super().__init__()
        check_wavelet(wavelet, levels, mode)
        self.wavelet, self.levels, self.mode, self.bands = wavelet, levels, mode, bands
        self._expansion = expand(parse_bands(bands), levels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``x`` (..., D, H, W); half precision is computed in float32 and returned as it came.

        Raises:
            ValueError: if ``x`` has fewer than three axes or is not of a real floating type.
        """
        if x.ndim < 3 or not x.is_floating_point():
            raise ValueError(f"input must be a real floating tensor (..., D, H, W), got {tuple(x.shape)}, {x.dtype}")
        if self._expansion == Expansion(1, -1, ()):
            return x
        with torch.autocast(x.device.type, enabled=False):
            # Details are small next to the mean: half precision would round them away.
            wide = plain_tensor(x).to(torch.promote_types(x.dtype, torch.float32))
            maps = [_factors(wide, self.wavelet, self.mode, term) for term in self._expansion.terms]
            return _Projection.apply(wide, self._expansion, maps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"wavelet={self.wavelet!r}, levels={self.levels}, mode={self.mode!r}, bands={self.bands!r}"


class _Projection(torch.autograd.Function):
    """The map and, as its backward, the transposed map: nothing is stored between the two."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, expansion: Expansion, maps: Maps) -> torch.Tensor:
        ctx.expansion, ctx.maps = expansion, maps
        return _combine(x, expansion, maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        transposed = [([s.mT for s in synthesis], [a.mT for a in analysis]) for analysis, synthesis in ctx.maps]
        return _combine(grad, ctx.expansion, transposed), None, None


def _factors(x: torch.Tensor, wavelet: str, mode: str, term: Term) -> tuple[Factors, Factors]:
    """Analysis and synthesis matrices of ``term`` for the axes D, H, W of ``x``."""
    sides = zip(x.shape[-3:], term.key, strict=True)
    analysis, synthesis = zip(
        *(axis_map(n, wavelet, mode, term.level, letter, x.device, x.dtype) for n, letter in sides), strict=True
    )
    return analysis, synthesis


def _combine(x: torch.Tensor, expansion: Expansion, maps: Maps) -> torch.Tensor:
    out = x.clone() if expansion.identity else torch.zeros_like(x)
    for analysis, synthesis in maps:
        out.add_(along_axes(along_axes(x, analysis), synthesis), alpha=expansion.sign)
    return out


def coefficients(x: torch.Tensor, wavelet: str, mode: str, term: Term) -> torch.Tensor:
    """The coefficients (..., d, h, w) of one subband of ``x`` (..., D, H, W); differentiable by autograd.

    By the matrices above: ptwt takes about ten times as long at features of 28×40×32, and refuses short sides.
    """
    return along_axes(x, _factors(x, wavelet, mode, term)[0])


def along_axes(x: torch.Tensor, matrices: Factors) -> torch.Tensor:
    """Multiply the last three axes (D, H, W) of ``x`` by one (m, n) matrix each."""
    depth, height, width = matrices
    x = height @ (x @ width.mT)
    return (depth @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
