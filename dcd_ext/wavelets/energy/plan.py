"""The transform of one feature grid as stacked matrices: what the fast loss needs to know about its geometry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch

from dcd_ext.wavelets.axis_maps import axis_map
from dcd_ext.wavelets.bands import expand
from dcd_ext.wavelets.energy.banded import Banded, split
from dcd_ext.wavelets.energy.gram import Gram, is_orthogonal, make_gram

__all__ = ["Plan", "make_plan"]

# The corners grow with the square of the number of terms; beyond this the general form is the better one.
_MAX_TERMS = 8


class Plan(NamedTuple):
    """Analysis of all terms of ``identity * x + sign * sum_k a_k^T a_k x`` on one grid.

    Attributes:
        depth, height: per term the matrix (m, n) of its axis, and its transpose.
        width: those of the last axis stacked to (sum of m, n), so that one product serves all terms.
        columns: where each term's rows lie in ``width``.
    """

    identity: int
    sign: int
    depth: list[Banded]
    height: list[Banded]
    depth_transposed: list[Banded]
    height_transposed: list[Banded]
    width: torch.Tensor
    columns: list[slice]
    gram: Gram

    def planes(self, x: torch.Tensor, out: Sequence[torch.Tensor]) -> None:
        """Analyse ``x`` (s, C, H, W) along H and W, into ``out``: (s, C, h_k, w_k) per term, contiguous."""
        rows = (x.view(-1, x.shape[-1]) @ self.width.mT).view(-1, x.shape[2], self.width.shape[0])
        for a, columns, y in zip(self.height, self.columns, out, strict=True):
            a.times(rows[:, :, columns], y.view(-1, *y.shape[2:]))

    def planes_transposed(self, coefficients: Sequence[torch.Tensor]) -> torch.Tensor:
        """The transpose of :meth:`planes`, summed over the terms: (s, C, H, W)."""
        s, c = coefficients[0].shape[:2]
        rows = coefficients[0].new_empty(s * c, self.height_transposed[0].rows, self.width.shape[0])
        for a, columns, x in zip(self.height_transposed, self.columns, coefficients, strict=True):
            rows[:, :, columns] = a.times(x.reshape(s * c, *x.shape[2:]))
        return (rows.view(-1, rows.shape[-1]) @ self.width).view(s, c, rows.shape[1], -1)

    def new_planes(self, depth: int, channels: int) -> list[torch.Tensor]:
        """Memory for the results of :meth:`planes`: (depth, channels, h_k, w_k) per term."""
        sizes = [(a.rows, columns.stop - columns.start) for a, columns in zip(self.height, self.columns, strict=True)]
        return [self.width.new_empty(depth, channels, *size) for size in sizes]

    def along_depth(self, planes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The last axis of the analysis: (D, C, h, w) to (d, C, h, w) per term."""
        return _along_first(self.depth, planes)

    def along_depth_transposed(self, coefficients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The transpose of :meth:`along_depth`."""
        return _along_first(self.depth_transposed, coefficients)


def _along_first(matrices: Sequence[Banded], volumes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    pairs = zip(matrices, volumes, strict=True)
    return [a.times(x.flatten(1)[None])[0].unflatten(1, x.shape[1:]) for a, x in pairs]


def make_plan(
    sides: tuple[int, int, int],
    wavelet: str,
    levels: int,
    mode: str,
    keys: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Plan | None:
    """The plan for volumes of ``sides`` (D, H, W), or None where the transform is not orthogonal or too manifold."""
    identity, sign, terms = expand(keys, levels)
    if mode != "zero" or not 0 < len(terms) <= _MAX_TERMS or not is_orthogonal(sides, wavelet, mode, terms):
        return None
    per_axis = [
        [axis_map(n, wavelet, mode, term.level, term.key[axis], device, dtype)[0] for term in terms]
        for axis, n in enumerate(sides)
    ]
    width = torch.cat(per_axis[2])
    gram = make_gram(sides, wavelet, mode, terms, device, dtype)
    columns = [slice(i, j) for i, j in pairwise(accumulate((len(a) for a in per_axis[2]), initial=0))]
    depth, height = ([split(a) for a in axis] for axis in per_axis[:2])
    depth_transposed, height_transposed = ([split(a.mT) for a in axis] for axis in per_axis[:2])
    return Plan(identity, sign, depth, height, depth_transposed, height_transposed, width, columns, gram)
