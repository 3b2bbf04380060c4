"""The transform of one feature grid as small matrices, computed once per grid for the fast engine."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import pywt
import torch
import torch.nn.functional as F

from dcd_ext.wavelets.axis_maps import axis_map
from dcd_ext.wavelets.bands import Transform, expand
from dcd_ext.wavelets.energy.gram import Gram, make_gram

# The corners of the Gram matrices grow with the square of the number of terms; beyond this the reference is faster.
_MAX_TERMS = 8
# Matrices of a CUDA device are padded by zeros to such sides, which its fast products need.
MULTIPLE = {"cuda": 4}


class Plan(NamedTuple):
    """``P x = identity * x + sign * sum_k a_k^T a_k x`` on one grid.

    Attributes:
        depth, height: per term k the matrix (m, n) of its axis.
        width: those of the last axis stacked to (sum of m, n), so that one product serves all terms.
        columns: where each term's rows lie in ``width``.
        name: tells this plan apart from others.
    """

    identity: int
    sign: int
    depth: list[torch.Tensor]
    height: list[torch.Tensor]
    width: torch.Tensor
    columns: list[slice]
    gram: Gram
    name: object

    def new_planes(self, depth: int, channels: int) -> list[torch.Tensor]:
        """Memory for the results of :meth:`planes` over the whole depth: (depth, channels, h_k, w_k) per term."""
        sizes = [(len(a), columns.stop - columns.start) for a, columns in zip(self.height, self.columns, strict=True)]
        return [self.width.new_empty(depth, channels, *size) for size in sizes]

    def planes(self, x: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        """Analyse ``x`` (s, C, H, W) along W and H, into ``out``: (s, C, h_k, w_k) per term, contiguous."""
        rows = (x.view(-1, x.shape[-1]) @ self.width.mT).view(-1, x.shape[2], len(self.width))
        for a, columns, y in zip(self.height, self.columns, out, strict=True):
            torch.bmm(a.expand(len(rows), -1, -1), rows[:, :, columns], out=y.view(-1, *y.shape[2:]))

    def planes_transposed(self, coefficients: Sequence[torch.Tensor]) -> torch.Tensor:
        """The transpose of :meth:`planes`, summed over the terms: (s, C, H, W)."""
        s, c = coefficients[0].shape[:2]
        rows = self.width.new_empty(s * c, self.height[0].shape[1], len(self.width))
        for a, columns, y in zip(self.height, self.columns, coefficients, strict=True):
            torch.bmm(a.mT.expand(s * c, -1, -1), y.flatten(0, 1), out=rows[:, :, columns])
        return (rows.view(-1, rows.shape[-1]) @ self.width).view(s, c, rows.shape[1], -1)

    def along_depth(self, planes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The last axis of the analysis: (D, C, h_k, w_k) to (d_k, C, h_k, w_k) per term."""
        return [(a @ y.flatten(1)).unflatten(1, y.shape[1:]) for a, y in zip(self.depth, planes, strict=True)]

    def along_depth_transposed(self, coefficients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [(a.mT @ y.flatten(1)).unflatten(1, y.shape[1:]) for a, y in zip(self.depth, coefficients, strict=True)]


@lru_cache(maxsize=32)
def make_plan(
    sides: tuple[int, int, int], transform: Transform, device: torch.device, dtype: torch.dtype
) -> Plan | None:
    """The plan for volumes of ``sides`` (D, H, W), or None where the transform is not orthogonal or has many terms."""
    wavelet, levels, mode, keys = transform
    identity, sign, terms = expand(keys, levels)
    # with an orthogonal wavelet and zero extension each term's synthesis is the transpose of its analysis
    if mode != "zero" or not pywt.Wavelet(wavelet).orthogonal or not 0 < len(terms) <= _MAX_TERMS:
        return None
    # A plan first made in inference mode must serve training as well.
    with torch.inference_mode(False), torch.no_grad():
        depth, height, width = (
            [_padded(axis_map(n, wavelet, mode, term.level, term.key[axis], device, dtype)[0]) for term in terms]
            for axis, n in enumerate(sides)
        )
        columns = [slice(i, j) for i, j in pairwise(accumulate((len(a) for a in width), initial=0))]
        gram = make_gram(sides, wavelet, mode, terms, device, dtype)
        return Plan(identity, sign, depth, height, torch.cat(width), columns, gram, object())


def _padded(matrix: torch.Tensor) -> torch.Tensor:
    return F.pad(matrix, (0, 0, 0, -len(matrix) % MULTIPLE.get(matrix.device.type, 1)))
