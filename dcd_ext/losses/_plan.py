"""The transform of one feature grid as stacked matrices: what the fast loss needs to know about its geometry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch

from dcd_ext.losses._gram import Gram, is_orthogonal, make_gram
from dcd_ext.wavelets.axis_maps import axis_map
from dcd_ext.wavelets.bands import expand

__all__ = ["Plan", "make_plan"]

# The corners grow with the square of the number of terms; beyond this the general form is the better one.
_MAX_TERMS = 8


class Plan(NamedTuple):
    """Analysis of all terms of ``identity * x + sign * sum_k a_k^T a_k x`` on one grid.

    Attributes:
        depth, height: per term the matrix (m, n) of its axis.
        width: those of the last axis stacked to (sum of m, n), so that one product serves all terms.
        columns: where each term's rows lie in ``width``.
    """

    identity: int
    sign: int
    depth: list[torch.Tensor]
    height: list[torch.Tensor]
    width: torch.Tensor
    columns: list[slice]
    gram: Gram

    def planes(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Per term the analysis along H and W of ``x`` (s, C, H, W): (s, C, h_k, w_k)."""
        s, c = x.shape[:2]
        rows = (x.view(-1, x.shape[-1]) @ self.width.mT).view(s * c, x.shape[2], -1)
        return [
            torch.bmm(a.expand(s * c, -1, -1), rows[:, :, columns]).view(s, c, a.shape[0], -1)
            for a, columns in zip(self.height, self.columns, strict=True)
        ]

    def planes_transposed(self, coefficients: Sequence[torch.Tensor]) -> torch.Tensor:
        """The transpose of :meth:`planes`, summed over the terms: (s, C, H, W)."""
        s, c = coefficients[0].shape[:2]
        rows = coefficients[0].new_empty(s * c, self.height[0].shape[1], self.width.shape[0])
        for a, columns, x in zip(self.height, self.columns, coefficients, strict=True):
            rows[:, :, columns] = torch.bmm(a.mT.expand(s * c, -1, -1), x.reshape(s * c, *x.shape[2:]))
        return (rows.view(-1, rows.shape[-1]) @ self.width).view(s, c, rows.shape[1], -1)


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
    return Plan(identity, sign, per_axis[0], per_axis[1], width, columns, gram)
