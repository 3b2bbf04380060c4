"""The mean squared detail of ``W F_S + b - F_T`` with its gradients, computed in one go.

Value and gradients need the same products of the wide error, so that both are made while it is in cache; it is never
stored, and the backward only scales. How one sample is computed depends on its grid, see :class:`Engine`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from dcd_ext.wavelets.energy.dense import MAX_VOXELS, make_dense
from dcd_ext.wavelets.energy.slabs import make_slabs

__all__ = ["Engine", "detail_energy", "make_engine"]


class Engine(Protocol):
    """``|P E|^2`` of one sample, ``E = W F_S + b - F_T``, on one grid."""

    def run(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        mixing: torch.Tensor,
        scale: float,
        grad_student: torch.Tensor | None,
        grad_mixing: torch.Tensor | None,
    ) -> torch.Tensor:
        """The energy, a float64 scalar.

        Args:
            student: F_S (C_S, D, H, W), any floating type.
            teacher: F_T (C_T, D, H, W), any floating type.
            mixing: (W, b) side by side (C_T, C_S + 1), of the type to compute in.
            scale: factor of the gradients of ``|P E|^2``.
            grad_student: overwritten by the gradient, unless None.
            grad_mixing: added to, unless None.
        """
        ...


@lru_cache(maxsize=32)
def make_engine(
    sides: tuple[int, int, int],
    wavelet: str,
    levels: int,
    mode: str,
    keys: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Engine | None:
    """The engine for grids of ``sides`` (D, H, W), or None where only the general form will do."""
    build = make_dense if sides[0] * sides[1] * sides[2] <= MAX_VOXELS else make_slabs
    # An engine first made in inference mode must serve training as well.
    with torch.inference_mode(False), torch.no_grad():
        return build(sides, wavelet, levels, mode, keys, device, dtype)


def detail_energy(
    student: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor, engine: Engine
) -> torch.Tensor:
    """``mean (P (W F_S + b - F_T))^2``, a scalar.

    Args:
        student: F_S (B, C_S, D, H, W), any floating type.
        weight: W (C_T, C_S), of the type to compute in.
        bias: b (C_T), of the same type.
        teacher: F_T (B, C_T, D, H, W), any floating type.
        engine: for this grid, in the same type.
    """
    return _DetailEnergy.apply(student, weight, bias, teacher, engine, torch.is_grad_enabled())


class _DetailEnergy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        teacher: torch.Tensor,
        engine: Engine,
        grad_enabled: bool,
    ) -> torch.Tensor:
        wants_student = grad_enabled and ctx.needs_input_grad[0]
        wants_mixing = grad_enabled and any(ctx.needs_input_grad[1:3])
        mixing = torch.cat([weight, bias[:, None]], dim=1)
        grad_student = mixing.new_empty(student.shape) if wants_student else None
        grad_mixing = torch.zeros_like(mixing) if wants_mixing else None
        energy = torch.zeros((), dtype=torch.float64, device=mixing.device)
        for i in range(student.shape[0]):
            of_sample = None if grad_student is None else grad_student[i]
            energy += engine.run(student[i], teacher[i], mixing, 2 / teacher.numel(), of_sample, grad_mixing)
        ctx.save_for_backward(grad_student, grad_mixing)
        return (energy / teacher.numel()).to(mixing.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_student, grad_mixing = ctx.saved_tensors
        student = None if grad_student is None else grad * grad_student
        weight, bias = (None, None) if grad_mixing is None else (grad * grad_mixing[:, :-1], grad * grad_mixing[:, -1])
        return student, weight, bias, None, None, None
