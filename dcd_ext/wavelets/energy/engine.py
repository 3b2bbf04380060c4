"""The mean squared detail of ``W F_S + b - F_T`` with its gradients, computed in one pass.

Value and gradients need the same products of the full-width error, so both are computed while it is in cache; it is
never stored, and the backward pass only scales.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from dcd_ext.recording import Recordings
from dcd_ext.wavelets.bands import Transform
from dcd_ext.wavelets.energy.dense import DensePlan, is_small, make_dense_plan
from dcd_ext.wavelets.energy.plan import MULTIPLE, Plan, make_plan
from dcd_ext.wavelets.energy.reference import detail_error
from dcd_ext.wavelets.energy.slabs import Energy, group_energy, groups

# On smaller grids the reference is faster: the engine would run many products of microseconds each.
_MIN_VOXELS = 2048
# Share of |E|² below which the energy of the details is computed without a difference: float32 then still leaves it
# four digits.
_SMALL_SHARE = 1e-3
# The same for products that round what they read to 11 bits; below it they are computed in float32.
_SMALL_SHARE_ROUNDED = 0.1
# of one or two computations per stage, for full and shorter batches
_recordings = Recordings(16)


def detail_energy(
    student: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    teacher: torch.Tensor,
    transform: Transform,
    reconstruct: bool = True,
    level_reduction: str = "joint",
    reference: bool = False,
    last: "LastShare | None" = None,
) -> torch.Tensor:
    """``mean (P (W F_S + b - F_T))²``, a scalar; ``P`` keeps the subbands of a transform.

    Args:
        student: F_S (B, C_S, D, H, W), any floating type.
        weight, bias: W (C_T, C_S) and b (C_T), of the type to compute in.
        teacher: F_T (B, C_T, D, H, W), any floating type; gets no gradient.
        transform: its levels are not limited here.
        reconstruct, level_reduction: see :class:`dcd_ext.losses.DCDLoss`.
        reference: use the reference implementation; results agree up to rounding.
        last: what is known of this difference from the step before; None: nothing, so that a GPU is waited for.
    """
    dtype = weight.dtype
    plan: Plan | DensePlan | None = None
    if reconstruct and level_reduction == "joint" and not reference:
        grid = ((teacher.shape[2], teacher.shape[3], teacher.shape[4]), transform, teacher.device, dtype)
        if is_small(grid[0], teacher.device):
            plan = make_dense_plan(*grid)
        elif teacher[0, 0].numel() >= _MIN_VOXELS:
            plan = make_plan(*grid)
    if plan is None:
        return detail_error(_error(student, weight, bias, teacher), transform, reconstruct, level_reduction)
    before = None if last is None else last.read()
    half = teacher.is_cuda and all(x.dtype.itemsize == 2 for x in (student, teacher))
    compute = partial(_DetailEnergy.apply, student, weight, bias, teacher, plan)
    if half and last is not None and before is None:
        # a training that goes on has to compute its first step as if it had not been interrupted
        before = float(compute(False, False)[1])
    rounded = half and before is not None and before >= _SMALL_SHARE_ROUNDED
    mean, share = compute(torch.is_grad_enabled(), rounded)
    if teacher.is_cuda and last is not None:
        last.send(share)
    cancels = isinstance(plan, Plan) and plan.identity
    if cancels and (float(share) if before is None else before) < _SMALL_SHARE:
        # Where smooth content dominates, the energy of the details is lost in the rounding of a difference: compute the
        # value with the reference, four channels at a time. (Of the gradients it takes fewer digits.)
        mean = mean + (_reference_mean(student, weight, bias, teacher, transform) - mean).detach()
    return mean


@contextmanager
def _tensor_float32(enabled: bool) -> Iterator[None]:
    """Products of CUDA's tensor cores, which round what they read to 11 bits, as float16 features already are."""
    if not enabled:
        yield
        return
    matmul: Any = torch.backends.cuda.matmul
    # the second: before torch 2.9
    name, value = ("fp32_precision", "tf32") if hasattr(matmul, "fp32_precision") else ("allow_tf32", True)
    before = getattr(matmul, name)
    setattr(matmul, name, value)
    try:
        yield
    finally:
        setattr(matmul, name, before)


class LastShare:
    """The share of ``|E|²`` that the details had in the step before; for this one's one would wait for the GPU."""

    def __init__(self) -> None:
        self._sent: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def send(self, share: torch.Tensor) -> None:
        """Start its way to the CPU."""
        value = torch.empty_like(share, device="cpu", pin_memory=True).copy_(share, non_blocking=True)
        self._sent = value, torch.cuda.Event()
        self._sent[1].record(torch.cuda.current_stream(share.device))

    def read(self) -> float | None:
        """None if there was no step before."""
        if self._sent is None:
            return None
        value, event = self._sent
        event.synchronize()
        return float(value)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return LastShare, ()  # a copy has seen nothing; events cannot be copied


def _error(student: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    # no convolution: CUDA's round float32 to 11 bits unless told otherwise
    projected = torch.matmul(weight, student.flatten(2).to(weight.dtype)).add_(bias[:, None])
    return projected.view_as(teacher) - teacher.to(weight.dtype)


@torch.no_grad()
def _reference_mean(
    student: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, teacher: torch.Tensor, transform: Transform
) -> torch.Tensor:
    parts = zip(weight.split(4), bias.split(4), teacher.split(4, 1), strict=True)
    sums = [detail_error(_error(student, w, b, t), transform) * len(w) for w, b, t in parts]
    return torch.stack(sums).sum() / len(weight)


def _joined(parts: list[Any], join: Callable[[Any], Any]) -> Any:
    """What was found for all groups; as it is if there is only one."""
    found = [part for part in parts if part is not None]
    return (found[0] if len(found) == 1 else join(found)) if found else None


class _DetailEnergy(torch.autograd.Function):
    """The mean, and the smallest share of ``|E|²`` that the details of a group of samples have."""

    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        teacher: torch.Tensor,
        plan: Plan | DensePlan,
        grad_enabled: bool,
        rounded: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mixing = torch.cat([weight, bias[:, None]], dim=1)
        mixing = F.pad(mixing, (0, -mixing.shape[1] % MULTIPLE.get(mixing.device.type, 1)))
        wanted = (grad_enabled and ctx.needs_input_grad[0], grad_enabled and any(ctx.needs_input_grad[1:3]))
        if isinstance(plan, DensePlan):
            compute, parts = plan.energy, [slice(0, len(teacher))]
        else:
            compute, parts = partial(group_energy, plan), groups(teacher, mixing)
        compute = partial(compute, of_student=wanted[0], of_mixing=wanted[1])
        found: list[Energy] = []
        with _tensor_float32(rounded):
            for part in parts:
                name = (plan.name, wanted, rounded)
                found.append(Energy(*_recordings(compute, name, student[part], teacher[part], mixing)))
        energy = _joined([f.energy for f in found], sum)
        share = _joined([f.share for f in found], lambda shares: torch.stack(shares).min())
        ctx.save_for_backward(
            _joined([f.grad_student for f in found], torch.cat), _joined([f.grad_mixing for f in found], sum)
        )
        ctx.scale, ctx.channels, ctx.dtype = 2 / teacher.numel(), student.shape[1], student.dtype
        ctx.mark_non_differentiable(share)
        return torch.div(energy, teacher.numel(), out=mixing.new_empty(())), share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _share: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        student, mixing = ctx.saved_tensors
        scale = ctx.scale * grad
        if student is not None:
            student = torch.mul(student, scale, out=torch.empty_like(student, dtype=ctx.dtype))
        if mixing is None:
            return student, None, None, None, None, None, None
        mixing = scale * mixing
        return student, mixing[:, : ctx.channels], mixing[:, ctx.channels], None, None, None, None
