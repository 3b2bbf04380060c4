"""The mean squared detail of ``W F_S + b - F_T`` and its gradients, without ever holding that difference.

With ``P = α + σ Σ_k a_k^T a_k`` (``a_k`` the analysis map of a kept or removed subband, α = 1, σ = -1 if removed),
``c_k = a_k E`` and ``d_k = 2ασ c_k + Σ_l a_k a_l^T c_l``::

    P P E = α E + Σ_k a_k^T d_k          |P E|² = α |E|² + Σ_k <c_k, d_k>

so that the wide error ``E`` is analysed but never synthesised; the gradients follow in the coefficients' domain::

    d/dF_S = 2 W^T P P E = 2 (α W^T E + Σ_k a_k^T (W^T d_k))        synthesis of the student's few channels
    d/dW   = 2 (P P E) F_S^T = 2 (α E F_S^T + Σ_k d_k (a_k F_S)^T)  analysis of the student's few channels

``E`` is made in slabs of a few planes that stay in cache, reduced along H and W at once, and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from dcd_ext.losses._plan import Plan

__all__ = ["detail_energy"]

# Enough planes per slab to keep all cores (or the GPU) busy, few enough to stay in the last-level cache.
_SLAB_BYTES = {"cpu": 4 << 20}
_SLAB_BYTES_ELSEWHERE = 256 << 20


def detail_energy(
    student: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor, plan: Plan
) -> torch.Tensor:
    """``mean (P (W F_S + b - F_T))^2``, a scalar.

    Args:
        student: F_S (B, C_S, D, H, W), any floating type.
        weight: W (C_T, C_S), of the type to compute in.
        bias: b (C_T), of the same type.
        teacher: F_T (B, C_T, D, H, W), any floating type.
        plan: P on this grid, in the same type.
    """
    return _DetailEnergy.apply(student, weight, bias, teacher, plan, torch.is_grad_enabled())


class _DetailEnergy(torch.autograd.Function):
    """Gradients are computed with the value, while the slabs are in cache; the backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        teacher: torch.Tensor,
        plan: Plan,
        grad_enabled: bool,
    ) -> torch.Tensor:
        wants_student = grad_enabled and ctx.needs_input_grad[0]
        wants_weight = grad_enabled and any(ctx.needs_input_grad[1:3])
        mixing = torch.cat([weight, bias[:, None]], dim=1)
        grad_student = student.new_empty(student.shape, dtype=weight.dtype) if wants_student else None
        grad_mixing = torch.zeros_like(mixing) if wants_weight else None
        scale = 1 / teacher.numel()
        energy = torch.zeros((), dtype=torch.float64, device=weight.device)
        for i in range(student.shape[0]):
            sample = _Sample(student[i], teacher[i], mixing, plan, 2 * scale)
            energy += sample.run(None if grad_student is None else grad_student[i], grad_mixing)
        ctx.save_for_backward(grad_student, grad_mixing)
        # Rounding may leave a tiny negative sum where the details vanish.
        return (energy * scale).clamp_min(0).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_student, grad_mixing = ctx.saved_tensors
        student = None if grad_student is None else grad * grad_student
        weight, bias = (None, None) if grad_mixing is None else (grad * grad_mixing[:, :-1], grad * grad_mixing[:, -1])
        return student, weight, bias, None, None, None


class _Sample:
    """One sample's energy and gradients; ``scale`` is the gradients' common factor."""

    def __init__(
        self, student: torch.Tensor, teacher: torch.Tensor, mixing: torch.Tensor, plan: Plan, scale: float
    ) -> None:
        self.student, self.teacher, self.mixing, self.plan = student, teacher, mixing, plan
        self.scaled = scale * mixing[:, :-1].mT
        self.scale = scale
        bytes_per_plane = sum(mixing.shape) * student[0, 0].numel() * mixing.element_size()
        budget = _SLAB_BYTES.get(mixing.device.type, _SLAB_BYTES_ELSEWHERE)
        self.step = min(student.shape[1], max(1, budget // bytes_per_plane))

    def run(self, grad_student: torch.Tensor | None, grad_mixing: torch.Tensor | None) -> torch.Tensor:
        """The energy, float64; fills ``grad_student`` (C_S, D, H, W) and adds to ``grad_mixing`` (C_T, C_S + 1)."""
        energy = torch.zeros((), dtype=torch.float64, device=self.mixing.device)
        of_error: list[torch.Tensor] = []
        of_student: list[torch.Tensor] = []
        for start, inputs, error in self._slabs():
            _store(of_error, self.plan.planes(error), start, self.student.shape[1])
            if grad_mixing is not None:
                _store(of_student, self.plan.planes(inputs), start, self.student.shape[1])
            if self.plan.identity:
                energy += self._identity_part(start, inputs, error, grad_student, grad_mixing)
        found = _depths(self.plan, of_error)
        change = self.plan.gram.apply(found)
        for c, d in zip(found, change, strict=True):
            d.add_(c, alpha=2 * self.plan.identity * self.plan.sign)
            energy += torch.linalg.vecdot(c.flatten(2), d.flatten(2)).sum(dtype=torch.float64)
        if grad_mixing is not None:
            for s, d in zip(_depths(self.plan, of_student), change, strict=True):
                grad_mixing.add_(torch.bmm(d.flatten(2), s.flatten(2).mT).sum(0), alpha=self.scale)
        if grad_student is not None:
            self._synthesise(change, grad_student)
        return energy

    def _slabs(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Per slab its first plane, [F_S; 1] (s, C_S + 1, H, W) and E (s, C_T, H, W); overwritten by the next one."""
        width, channels = self.mixing.shape
        depth, *sides = self.student.shape[1:]
        inputs = self.mixing.new_ones(self.step, channels, *sides)
        error = self.mixing.new_empty(self.step, width, *sides)
        for start in range(0, depth, self.step):
            part = slice(start, min(start + self.step, depth))
            s = part.stop - start
            inputs[:s, :-1] = self.student[:, part].transpose(0, 1)
            error[:s] = self.teacher[:, part].transpose(0, 1)
            error[:s].flatten(2).baddbmm_(self.mixing.expand(s, -1, -1), inputs[:s].flatten(2), beta=-1)
            yield start, inputs[:s], error[:s]

    def _identity_part(
        self,
        start: int,
        inputs: torch.Tensor,
        error: torch.Tensor,
        grad_student: torch.Tensor | None,
        grad_mixing: torch.Tensor | None,
    ) -> torch.Tensor:
        flat = error.flatten(2)
        if grad_mixing is not None:
            grad_mixing.add_(torch.bmm(flat, inputs.flatten(2).mT).sum(0), alpha=self.scale)
        if grad_student is not None:
            mixed = torch.bmm(self.scaled.expand(len(flat), -1, -1), flat).unflatten(2, error.shape[2:])
            grad_student[:, start : start + len(flat)] = mixed.transpose(0, 1)
        return torch.linalg.vecdot(flat, flat).sum(dtype=torch.float64)

    def _synthesise(self, change: list[torch.Tensor], grad_student: torch.Tensor) -> None:
        """Add ``Σ a_k^T W^T d_k`` to the identity's part, or write it where there is none."""
        mixed = [torch.bmm(self.scaled.expand(len(d), -1, -1), d.flatten(2)).unflatten(2, d.shape[2:]) for d in change]
        mixed = [(a.mT @ m.flatten(1)).unflatten(1, m.shape[1:]) for a, m in zip(self.plan.depth, mixed, strict=True)]
        for start in range(0, self.student.shape[1], self.step):
            part = slice(start, start + self.step)
            planes = self.plan.planes_transposed([m[part] for m in mixed]).transpose(0, 1)
            if self.plan.identity:
                grad_student[:, part] += planes
            else:
                grad_student[:, part] = planes


def _store(store: list[torch.Tensor], planes: list[torch.Tensor], start: int, depth: int) -> None:
    """Collect slabs (s, C, h, w) to (D, C, h, w) per term."""
    if not store:
        store.extend(p.new_empty(depth, *p.shape[1:]) for p in planes)
    for whole, p in zip(store, planes, strict=True):
        whole[start : start + len(p)] = p


def _depths(plan: Plan, planes: list[torch.Tensor]) -> list[torch.Tensor]:
    """The last axis of the analysis: (D, C, h, w) to (d, C, h, w) per term."""
    return [(a @ p.flatten(1)).unflatten(1, p.shape[1:]) for a, p in zip(plan.depth, planes, strict=True)]
