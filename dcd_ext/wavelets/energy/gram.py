"""Inner products between the analysis maps of subbands, kept only where they differ from orthonormality.

In the interior of a volume the rows of all subbands' analysis maps ``a_k`` are orthonormal. The border cuts some of
them, so that ``G_kl = a_k a_l^T`` (a product of one matrix per axis) is ``identity if k = l else 0`` plus
 - for k = l: corrections ``U = G - 1`` of one axis at a time, nonzero at the ends of that axis only;
 - for k ≠ l: a product of three matrices that are each nonzero at the ends only, i.e. the corners of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from dcd_ext.wavelets.axis_maps import analysis_matrix, synthesis_matrix
from dcd_ext.wavelets.bands import Term

__all__ = ["Gram", "is_orthogonal", "make_gram"]

# PyWavelets' filters are orthonormal to about 1e-12; what is below this is their rounding, not a border.
_NEGLIGIBLE = 1e-10


class _Block(NamedTuple):
    """The nonzero part of a one-axis matrix: the rows and columns it occupies and its values there."""

    rows: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor


class Gram(NamedTuple):
    """All ``G_kl`` of a set of terms: per term the axes' ``ends``, per (target, source) pair the ``corners``."""

    ends: list[list[_Block]]
    corners: list[tuple[int, int, list[_Block]]]

    def apply(self, coefficients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """``sum over l of G_kl c_l`` for every term k; all c_k and results are (d, C, h, w)."""
        results = [c.clone() for c in coefficients]
        for result, blocks in zip(results, self.ends, strict=True):
            for axis, block in zip((0, 2, 3), blocks, strict=True):
                if len(block.rows):
                    piece = result.index_select(axis, block.columns)
                    change = torch.tensordot(piece, block.values, dims=([axis], [1])).movedim(-1, axis)
                    result.index_add_(axis, block.rows, change)
        for target, source, blocks in self.corners:
            piece = coefficients[source][_grid([b.columns for b in blocks])]
            for block in reversed(blocks):
                # Axes (d, h, w, C): contracting w, then h, then d brings each to the front in turn.
                piece = torch.tensordot(block.values, piece, dims=([1], [2]))
            results[target][_grid([b.rows for b in blocks])] += piece
        return results


def _grid(indices: Sequence[torch.Tensor]) -> tuple[torch.Tensor | slice, ...]:
    """Index of a (d, C, h, w) tensor for a sub-grid; the result's axes are (d, h, w, C)."""
    d, h, w = indices
    return d[:, None, None], slice(None), h[:, None], w


def is_orthogonal(sides: Sequence[int], wavelet: str, mode: str, terms: Sequence[Term]) -> bool:
    """Whether each term's synthesis is the transpose of its analysis: orthogonal wavelets under zero extension."""
    pairs = {(n, term.level, letter) for term in terms for n, letter in zip(sides, term.key, strict=True)}
    return all(_is_transpose(n, wavelet, mode, level, letter) for n, level, letter in pairs)


@cache
def _is_transpose(n: int, wavelet: str, mode: str, level: int, letter: str) -> bool:
    analysis = analysis_matrix(n, wavelet, mode, level, letter)
    synthesis = synthesis_matrix(n, wavelet, mode, level, letter)
    return analysis.shape == synthesis.T.shape and bool(np.abs(analysis - synthesis.T).max() < _NEGLIGIBLE)


def make_gram(
    sides: Sequence[int], wavelet: str, mode: str, terms: Sequence[Term], device: torch.device, dtype: torch.dtype
) -> Gram:
    """Compute the ends and corners for volumes of ``sides`` (D, H, W)."""

    def matrices(k: Term, m: Term) -> list[np.ndarray]:
        return [
            analysis_matrix(n, wavelet, mode, k.level, a) @ analysis_matrix(n, wavelet, mode, m.level, b).T
            for n, a, b in zip(sides, k.key, m.key, strict=True)
        ]

    def blocks(products: Sequence[np.ndarray]) -> list[_Block]:
        return [_nonzero(product, device, dtype) for product in products]

    ends = [blocks([g - np.eye(len(g)) for g in matrices(term, term)]) for term in terms]
    pairs = [(k, m, blocks(matrices(a, b))) for k, a in enumerate(terms) for m, b in enumerate(terms) if k != m]
    return Gram(ends, [pair for pair in pairs if all(len(block.rows) for block in pair[2])])


def _nonzero(matrix: np.ndarray, device: torch.device, dtype: torch.dtype) -> _Block:
    large = np.abs(matrix) > _NEGLIGIBLE
    rows, columns = np.flatnonzero(large.any(axis=1)), np.flatnonzero(large.any(axis=0))
    return _Block(
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(matrix[np.ix_(rows, columns)], device=device, dtype=dtype),
    )
