"""Products with banded matrices as a few dense blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Banded", "split"]

_MAX_BLOCKS = 4
# What a further product costs besides its multiplications, in entries of the matrix; from timings of small products.
_COST_OF_A_BLOCK = 512


class Banded(NamedTuple):
    """A matrix (rows, n) as dense ``blocks``: (rows, columns, values) each."""

    rows: int
    blocks: list[tuple[slice, slice, torch.Tensor]]

    def times(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The product with every ``x[i]`` of ``x`` (N, n, w): (N, rows, w)."""
        if out is None:
            out = x.new_empty(x.shape[0], self.rows, x.shape[2])
        for rows, columns, values in self.blocks:
            torch.bmm(values.expand(x.shape[0], -1, -1), x[:, columns], out=out[:, rows])
        return out


def split(matrix: torch.Tensor) -> Banded:
    """Split the rows of ``matrix`` into blocks of equal height where that leaves out enough zeros.

    The filters of the finest level, which carry most of the cost, span 8 of up to 160 columns.
    """
    candidates = [_blocks(matrix, n) for n in range(1, _MAX_BLOCKS + 1)]
    cheapest = min(candidates, key=lambda blocks: sum(v.numel() + _COST_OF_A_BLOCK for _, _, v in blocks))
    return Banded(len(matrix), cheapest)


def _blocks(matrix: torch.Tensor, number: int) -> list[tuple[slice, slice, torch.Tensor]]:
    height = -(-len(matrix) // number)
    blocks = []
    for start in range(0, len(matrix), height):
        rows = slice(start, min(start + height, len(matrix)))
        used = matrix[rows].any(dim=0).nonzero().flatten().tolist() or [0]
        columns = slice(used[0], used[-1] + 1)
        blocks.append((rows, columns, matrix[rows, columns].contiguous()))
    return blocks
