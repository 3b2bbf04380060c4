"""The mean squared detail of ``W F_S + b - F_T`` with its gradients, computed in one pass.

Value and gradients need the same products of the full-width error, so both are computed while it is in cache; it is
never stored, and the backward pass only scales.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from dcd_ext.wavelets.bands import Transform
from dcd_ext.wavelets.energy.plan import Plan, make_plan
from dcd_ext.wavelets.energy.reference import detail_error
from dcd_ext.wavelets.energy.slabs import group_energy, groups

# On smaller grids the reference is faster: the engine would run many products of microseconds each.
_MIN_VOXELS = 2048
# Share of |E|² below which the energy of the details is computed without a difference: float32 then still leaves it
# four digits.
_SMALL_SHARE = 1e-3


def detail_energy(
    student: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    teacher: torch.Tensor,
    transform: Transform,
    reconstruct: bool = True,
    level_reduction: str = "joint",
    reference: bool = False,
    small: "SmallShare | None" = None,
) -> torch.Tensor:
    """``mean (P (W F_S + b - F_T))²``, a scalar; ``P`` keeps the subbands of a transform.

    Args:
        student: F_S (B, C_S, D, H, W), any floating type.
        weight: W (C_T, C_S), of the type to compute in.
        bias: b (C_T), of the same type.
        teacher: F_T (B, C_T, D, H, W), any floating type; gets no gradient.
        transform: its levels are not limited here.
        reconstruct, level_reduction: see :class:`dcd_ext.losses.DCDLoss`.
        reference: use the reference implementation; results agree up to rounding.
        small: what was seen of this difference in earlier steps; None: nothing.
    """
    dtype = weight.dtype
    plan = None
    if reconstruct and level_reduction == "joint" and not reference and teacher[0, 0].numel() >= _MIN_VOXELS:
        sides = (teacher.shape[2], teacher.shape[3], teacher.shape[4])
        plan = make_plan(sides, transform, teacher.device, dtype)
    if plan is None:
        return detail_error(_error(student, weight, bias, teacher), transform, reconstruct, level_reduction)
    mean, share = _DetailEnergy.apply(student, weight, bias, teacher, plan, torch.is_grad_enabled())
    if plan.identity and (small or SmallShare())(share):
        # Where smooth content dominates, the energy of the details is lost in the rounding of a difference: compute the
        # value with the reference, four channels at a time. (The gradients involve no such difference.)
        mean = mean + (_reference_mean(student, weight, bias, teacher, transform) - mean).detach()
    return mean


@contextmanager
def _tensor_float32(enabled: bool) -> Iterator[None]:
    """Products of CUDA's tensor cores, which round their inputs to 11 bits, as float16 features already are."""
    before = torch.get_float32_matmul_precision()
    try:
        if enabled:
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        if enabled:
            torch.set_float32_matmul_precision(before)


class SmallShare:
    """Whether the details are a small share of ``|E|²``, so that float32 would lose their energy in a difference.

    On a GPU the step before decides: its answer is there, whereas this step's would have to be waited for.
    """

    def __init__(self) -> None:
        self._before: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def __call__(self, share: torch.Tensor) -> bool:
        if share.device.type != "cuda":
            return bool(share < _SMALL_SHARE)
        now = torch.empty_like(share, device="cpu", pin_memory=True).copy_(share, non_blocking=True), torch.cuda.Event()
        now[1].record()
        (value, event), self._before = self._before or now, now
        event.synchronize()
        return bool(value < _SMALL_SHARE)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return SmallShare, ()  # a copy has seen nothing; events cannot be copied


def _error(student: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return F.conv3d(student.to(weight.dtype), weight[:, :, None, None, None], bias) - teacher.to(weight.dtype)


@torch.no_grad()
def _reference_mean(
    student: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor, transform: Transform
) -> torch.Tensor:
    parts = zip(weight.split(4), bias.split(4), teacher.split(4, 1), strict=True)
    sums = [detail_error(_error(student, w, b, t), transform) * len(w) for w, b, t in parts]
    return torch.stack(sums).sum() / len(weight)


class _DetailEnergy(torch.autograd.Function):
    """The mean, and the smallest share of ``|E|²`` that a sample's details have."""

    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        teacher: torch.Tensor,
        plan: Plan,
        grad_enabled: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mixing = torch.cat([weight, bias[:, None]], dim=1)
        grad_student = mixing.new_zeros(student.shape) if grad_enabled and ctx.needs_input_grad[0] else None
        grad_mixing = torch.zeros_like(mixing) if grad_enabled and any(ctx.needs_input_grad[1:3]) else None
        found = []
        scale = 2 / teacher.numel()
        with _tensor_float32(teacher.is_cuda and all(x.dtype.itemsize == 2 for x in (student, teacher))):
            for part in groups(teacher, mixing):
                of_group = None if grad_student is None else grad_student[part]
                found.append(group_energy(plan, student[part], teacher[part], mixing, scale, of_group, grad_mixing))
        energies, identities = map(torch.cat, zip(*found, strict=True))
        energy, share = energies.sum(), (energies / identities.clamp_min(torch.finfo(torch.float64).tiny)).min()
        ctx.save_for_backward(grad_student, grad_mixing)
        ctx.mark_non_differentiable(share)
        return (energy / teacher.numel()).to(mixing.dtype), share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _share: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_student, grad_mixing = ctx.saved_tensors
        student = None if grad_student is None else grad * grad_student
        weight, bias = (None, None) if grad_mixing is None else (grad * grad_mixing[:, :-1], grad * grad_mixing[:, -1])
        return student, weight, bias, None, None, None
