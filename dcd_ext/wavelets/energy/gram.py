"""Inner products between the analysis maps of subbands, kept only where they differ from orthonormality.

In the interior of a volume the rows of all subbands' analysis maps ``a_k`` are orthonormal. The border cuts some of
them, so that ``G_kl = a_k a_l^T`` (a product of one matrix per axis) is ``identity if k = l else 0`` plus
 - for k = l: corrections ``U = G - 1`` of one axis at a time, nonzero at the ends of that axis only;
 - for k ≠ l: a product of three matrices that are each nonzero at the ends only, i.e. the corners of the volume.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dcd_ext.wavelets.axis_maps import analysis_matrix
from dcd_ext.wavelets.bands import Term

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
                piece = result.index_select(axis, block.columns)
                change = torch.tensordot(piece, block.values, dims=([axis], [1])).movedim(-1, axis)
                result.index_add_(axis, block.rows, change)
        for target, source, (d, h, w) in self.corners:
            corner = coefficients[source][d.columns[:, None, None], :, h.columns[:, None], w.columns]
            change = torch.einsum("ai,bj,ck,ijkl->abcl", d.values, h.values, w.values, corner)
            results[target][d.rows[:, None, None], :, h.rows[:, None], w.rows] += change
        return results


def make_gram(
    sides: Sequence[int], wavelet: str, mode: str, terms: Sequence[Term], device: torch.device, dtype: torch.dtype
) -> Gram:
    """Compute the ends and corners for volumes of ``sides`` (D, H, W)."""

    def blocks(k: Term, m: Term) -> list[_Block]:
        products = [
            analysis_matrix(n, wavelet, mode, k.level, a) @ analysis_matrix(n, wavelet, mode, m.level, b).T
            for n, a, b in zip(sides, k.key, m.key, strict=True)
        ]
        return [_nonzero(g - np.eye(len(g)) if k == m else g, device, dtype) for g in products]

    pairs = [(i, j, blocks(k, m)) for i, k in enumerate(terms) for j, m in enumerate(terms) if i != j]
    return Gram([blocks(term, term) for term in terms], [p for p in pairs if all(len(block.rows) for block in p[2])])


def _nonzero(matrix: np.ndarray, device: torch.device, dtype: torch.dtype) -> _Block:
    large = np.abs(matrix) > _NEGLIGIBLE
    rows, columns = np.flatnonzero(large.any(axis=1)), np.flatnonzero(large.any(axis=0))
    return _Block(
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(matrix[np.ix_(rows, columns)], device=device, dtype=dtype),
    )
