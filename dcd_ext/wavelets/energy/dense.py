"""Tiny grids: the whole projection as one matrix, for every wavelet, mode and choice of bands."""

from __future__ import annotations

import torch

from dcd_ext.wavelets.projection import DetailProjection

__all__ = ["MAX_VOXELS", "make_dense"]

# The matrix has the square of this many entries (1.6 MB in float32), and its products stay cheaper than the many
# small ones per axis.
MAX_VOXELS = 640


class _Dense:
    """``P E`` as the product of E (C_T, V) and P^T (V, V)."""

    def __init__(self, transposed: torch.Tensor) -> None:
        self.transposed = transposed

    def run(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        mixing: torch.Tensor,
        scale: float,
        grad_student: torch.Tensor | None,
        grad_mixing: torch.Tensor | None,
    ) -> torch.Tensor:
        """See :class:`dcd_ext.wavelets.energy.engine.Engine`."""
        inputs = mixing.new_ones(mixing.shape[1], teacher[0].numel())
        inputs[:-1] = student.flatten(1)
        error = mixing @ inputs - teacher.flatten(1)
        detail = error @ self.transposed
        if grad_student is not None or grad_mixing is not None:
            twice = detail @ self.transposed.mT
        if grad_student is not None:
            grad_student.copy_((scale * mixing[:, :-1].mT @ twice).view_as(grad_student))
        if grad_mixing is not None:
            grad_mixing.addmm_(twice, inputs.mT, alpha=scale)
        return torch.linalg.vecdot(detail, detail).sum(dtype=torch.float64)


def make_dense(
    sides: tuple[int, int, int],
    wavelet: str,
    levels: int,
    mode: str,
    keys: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> _Dense:
    """Build P^T from the projections of unit impulses, in float64."""
    voxels = sides[0] * sides[1] * sides[2]
    impulses = torch.eye(voxels, dtype=torch.float64).view(voxels, *sides)
    columns = DetailProjection(wavelet, levels, mode, keys)(impulses)
    return _Dense(columns.reshape(voxels, voxels).to(device, dtype))
