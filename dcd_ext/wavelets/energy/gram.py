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


# what a symmetric one-axis matrix has beyond the identity: the places it occupies and its values there
_Block = tuple[torch.Tensor, torch.Tensor]


class _Corners(NamedTuple):
    """Where the terms meet in the corners of the volume, of one size per axis (zeros behind shorter ones).

    Attributes:
        places: per term the coefficients (d, h, w) of its corners, as indices that broadcast against each other.
        depth: per target term k its matrices with all T sources side by side (d_k, T·d).
        height, width: per target term k one matrix for each source and each place on the axes before (d, and d and h):
            (T·d, h_k, h) and (T·d·h, w_k, w).
    """

    places: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    depth: list[torch.Tensor]
    height: list[torch.Tensor]
    width: list[torch.Tensor]


class Gram(NamedTuple):
    """All ``G_kl`` of a set of terms: per term the axes' ``ends``, and the ``corners`` between terms, if they meet."""

    ends: list[list[_Block]]
    corners: _Corners | None

    def apply(self, coefficients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """``sum over l of G_kl c_l`` for every term k; all c_k and results are (d, C, h, w)."""
        results = [c.clone() for c in coefficients]
        for result, blocks in zip(results, self.ends, strict=True):
            for axis, (places, values) in zip((0, 2, 3), blocks, strict=True):
                if len(places):  # else the wavelet's filters are not cut here
                    result.index_add_(axis, places, _times(values, result.index_select(axis, places), axis))
        if self.corners is not None:
            _add_corners(self.corners, coefficients, results)
        return results


def _times(matrix: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """The symmetric ``matrix`` times one axis of ``x`` (d, C, h, w), in one product."""
    if axis == 0:
        return (matrix @ x.flatten(1)).view_as(x)
    if axis == 3:
        return (x.view(-1, x.shape[3]) @ matrix).view_as(x)
    return torch.bmm(matrix.expand(x.shape[0] * x.shape[1], -1, -1), x.flatten(0, 1)).view_as(x)


def _add_corners(corners: _Corners, coefficients: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> None:
    """The products of all sources for one target at a time; channels come last."""
    sides = [max(n) for n in zip(*([len(axis.flatten()) for axis in p] for p in corners.places), strict=True)]
    channels = coefficients[0].shape[1]
    sources = coefficients[0].new_zeros(len(coefficients), *sides, channels)
    for source, c, (d, h, w) in zip(sources, coefficients, corners.places, strict=True):
        source[: d.numel(), : h.numel(), : w.numel()] = c[d, :, h, w]
    for result, places, depth, height, width in zip(results, *corners, strict=True):
        d, h, w = places
        change = torch.bmm(width, sources.flatten(0, 2)).view(len(height), sides[1], -1)
        change = torch.bmm(height, change).view(depth.shape[1], -1)
        change = (depth @ change).view(d.numel(), h.numel(), w.numel(), channels)
        result[d, :, h, w] += change


def make_gram(
    sides: Sequence[int], wavelet: str, mode: str, terms: Sequence[Term], device: torch.device, dtype: torch.dtype
) -> Gram:
    """Compute the ends and corners for volumes of ``sides`` (D, H, W)."""

    def products(axis: int) -> list[list[np.ndarray]]:
        maps = [analysis_matrix(sides[axis], wavelet, mode, term.level, term.key[axis]) for term in terms]
        return [[a @ b.T for b in maps] for a in maps]

    grams = [products(axis) for axis in range(3)]
    ends = [[_end(gram[k][k] - np.eye(len(gram[k][k])), device, dtype) for gram in grams] for k in range(len(terms))]
    return Gram(ends, _make_corners(grams, device, dtype))


def _end(matrix: np.ndarray, device: torch.device, dtype: torch.dtype) -> _Block:
    places = np.flatnonzero((np.abs(matrix) > _NEGLIGIBLE).any(axis=0))
    values = torch.tensor(matrix[np.ix_(places, places)], device=device, dtype=dtype)
    return torch.tensor(places, device=device), values


def _make_corners(grams: list[list[list[np.ndarray]]], device: torch.device, dtype: torch.dtype) -> _Corners | None:
    """From ``a_k a_l^T`` per axis and pair of terms."""
    terms = range(len(grams[0]))

    def meet(k: int, m: int) -> bool:
        return k != m and all((np.abs(gram[k][m]) > _NEGLIGIBLE).any() for gram in grams)

    if not any(meet(k, m) for k in terms for m in terms):
        return None
    places = [[_meeting(gram, k, [m for m in terms if meet(k, m)]) for k in terms] for gram in grams]
    sides = [max(map(len, axis)) for axis in places]

    def matrices(axis: int, k: int) -> torch.Tensor:
        """(T, places of k, side), zero where two terms do not meet."""
        found = np.zeros((len(terms), len(places[axis][k]), sides[axis]))
        for m in terms:
            if meet(k, m):
                block = grams[axis][k][m][np.ix_(places[axis][k], places[axis][m])]
                found[m, :, : block.shape[1]] = block
        return torch.tensor(found, device=device, dtype=dtype)

    indices = [[torch.tensor(p, device=device) for p in axis] for axis in places]
    return _Corners(
        [(d[:, None, None], h[:, None], w) for d, h, w in zip(*indices, strict=True)],
        [matrices(0, k).transpose(0, 1).flatten(1) for k in terms],
        [matrices(1, k).repeat_interleave(sides[0], 0) for k in terms],
        [matrices(2, k).repeat_interleave(sides[0] * sides[1], 0) for k in terms],
    )


def _meeting(gram: list[list[np.ndarray]], k: int, others: Sequence[int]) -> np.ndarray:
    """Places of term ``k`` on one axis at which it meets any of ``others``."""
    found = np.zeros(len(gram[k][k]), dtype=bool)
    for m in others:
        found |= (np.abs(gram[k][m]) > _NEGLIGIBLE).any(axis=1)
    return np.flatnonzero(found)
