"""``|P E|²`` and its gradients for orthogonal wavelets, without storing the full-width error ``E = W F_S + b - F_T``.

With ``P = α + σ Σ_k a_k^T a_k`` (``a_k`` the analysis map of a kept or removed subband, α = 1, σ = -1 if removed),
``c_k = a_k E`` and ``d_k = 2ασ c_k + Σ_l a_k a_l^T c_l``::

    P P E = α E + Σ_k a_k^T d_k          |P E|² = α |E|² + Σ_k <c_k, d_k>

so that the full-width error is analysed but never synthesised; the gradients follow in the coefficient domain::

    d/dF_S = 2 W^T P P E = 2 (α W^T E + Σ_k a_k^T (W^T d_k))        synthesis of the student's few channels
    d/dW   = 2 (P P E) F_S^T = 2 (α E F_S^T + Σ_k d_k (a_k F_S)^T)  analysis of the student's few channels

``E`` is computed in slabs of a few planes that stay in cache, reduced along H and W immediately, and discarded.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch

from dcd_ext.wavelets.energy.fused import error_slab, is_fusible
from dcd_ext.wavelets.energy.plan import Plan

# Bytes of full-width error: enough planes per slab to keep all cores (or the GPU) busy, few enough to stay in the
# last-level cache of a CPU.
_SLAB_BYTES = {"cpu": 4 << 20}
_SLAB_BYTES_ELSEWHERE = 256 << 20
# And of the samples that are computed together: one at a time on a CPU, as many as make kernels large on a GPU.
_GROUP_BYTES = {"cpu": 0}
_GROUP_BYTES_ELSEWHERE = 1 << 30


class Energy(NamedTuple):
    """Of a group of samples ``|P E|²`` and its share of ``|E|²``, float64 scalars; gradients of half the former."""

    energy: torch.Tensor
    share: torch.Tensor
    grad_student: torch.Tensor | None
    grad_mixing: torch.Tensor | None


def groups(teacher: torch.Tensor, mixing: torch.Tensor) -> list[slice]:
    """The samples of a batch that are computed together, which bounds the memory."""
    budget = _GROUP_BYTES.get(mixing.device.type, _GROUP_BYTES_ELSEWHERE)
    return _slices(len(teacher), budget, teacher[0].numel() * mixing.element_size())


def group_energy(
    plan: Plan, student: torch.Tensor, teacher: torch.Tensor, mixing: torch.Tensor, of_student: bool, of_mixing: bool
) -> Energy:
    """The energy of one group, and the gradients that are asked for.

    Samples lie beside the channels: all planes, coefficients and slabs are (·, B·C, ·, ·).

    Args:
        plan: for the grid (D, H, W).
        student, teacher: F_S (B, C_S, D, H, W) and F_T (B, C_T, D, H, W), any floating type.
        mixing: (W, b) side by side (C_T, C_S + 1), of the type to compute in; more columns have to be zero.
        of_student, of_mixing: whether these gradients are wanted.
    """
    samples, depth, (wide, narrow) = len(teacher), teacher.shape[2], mixing.shape
    of_identity = torch.zeros((), dtype=torch.float64, device=mixing.device)
    of_error = plan.new_planes(depth, samples * wide)
    of_inputs = plan.new_planes(depth, samples * narrow) if of_mixing else []
    grad_student = mixing.new_empty(student.shape) if of_student else None
    grad_mixing = torch.zeros_like(mixing) if of_mixing else None
    weight = mixing[:, : student.shape[1]].mT
    fused = bool(plan.identity) and of_student and of_mixing and is_fusible(student, teacher, mixing)
    for part, inputs, error in _slabs(teacher, mixing):
        if fused:
            square, outer = error_slab(student, teacher, mixing, part, inputs, error, cast(torch.Tensor, grad_student))
            of_identity += square
            grad_mixing = cast(torch.Tensor, grad_mixing) + outer
        else:
            _fill(student[:, :, part], teacher[:, :, part], mixing, inputs, error)
        plan.planes(error, [p[part] for p in of_error])
        if of_mixing:
            plan.planes(inputs, [p[part] for p in of_inputs])
        if fused:
            continue
        if plan.identity:
            of_identity += _product(error, error)
        if grad_mixing is not None and plan.identity:
            _add_outer(grad_mixing, error, inputs)
        if grad_student is not None:
            grad_student[:, :, part] = _by_sample(_mix(weight, error), samples) if plan.identity else 0
    coefficients = plan.along_depth(of_error)
    del of_error
    change = plan.gram.apply(coefficients)
    energy = of_identity.clone()
    for c, d in zip(coefficients, change, strict=True):
        d.add_(c, alpha=2 * plan.identity * plan.sign)
        energy += _product(c, d)
    if grad_mixing is not None:
        for s, d in zip(plan.along_depth(of_inputs), change, strict=True):
            _add_outer(grad_mixing, d, s)
    if grad_student is not None:
        mixed = plan.along_depth_transposed([_mix(weight, d) for d in change])
        for part in _parts(teacher, mixing):
            grad_student[:, :, part] += _by_sample(plan.planes_transposed([m[part] for m in mixed]), samples)
    share = energy / of_identity.clamp_min(torch.finfo(torch.float64).tiny)
    return Energy(energy, share, grad_student, grad_mixing)


def _slabs(teacher: torch.Tensor, mixing: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Per slab its planes, and memory for [F_S; 1] (s, B·narrow, H, W) and E (s, B·C_T, H, W), used by the next one."""
    parts = _parts(teacher, mixing)
    sizes = [
        (parts[0].stop, len(teacher) * channels, *teacher.shape[3:]) for channels in (mixing.shape[1], len(mixing))
    ]
    inputs, error = (mixing.new_empty(size) for size in sizes)
    for part in parts:
        yield part, inputs[: part.stop - part.start], error[: part.stop - part.start]


def _fill(
    student: torch.Tensor, teacher: torch.Tensor, mixing: torch.Tensor, inputs: torch.Tensor, error: torch.Tensor
) -> None:
    """Write [F_S; 1] and E of a slab of features (B, C, s, H, W)."""
    samples, channels, (wide, narrow), voxels = len(teacher), student.shape[1], mixing.shape, error.shape[2:].numel()
    own = inputs.unflatten(1, (samples, narrow))
    own[:, :, :channels] = student.permute(2, 0, 1, 3, 4)
    own[:, :, channels:] = 1
    error.unflatten(1, (samples, wide)).copy_(teacher.permute(2, 0, 1, 3, 4))
    columns = inputs.view(-1, narrow, voxels)
    error.view(-1, wide, voxels).baddbmm_(mixing.expand(len(columns), -1, -1), columns, beta=-1)


def _parts(teacher: torch.Tensor, mixing: torch.Tensor) -> list[slice]:
    budget = _SLAB_BYTES.get(mixing.device.type, _SLAB_BYTES_ELSEWHERE)
    plane = len(teacher) * sum(mixing.shape) * teacher.shape[3:].numel() * mixing.element_size()
    return _slices(teacher.shape[2], budget, plane)


def _slices(length: int, budget: int, each: int) -> list[slice]:
    """Of ``length`` parts as many together, but at least one, as ``budget`` holds."""
    step = min(length, max(1, budget // each))
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]


def _by_sample(x: torch.Tensor, samples: int) -> torch.Tensor:
    """(n, B·C, h, w) as (B, C, n, h, w)."""
    return x.unflatten(1, (samples, -1)).permute(1, 2, 0, 3, 4)


def _mix(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``weight`` (C, C_T) times the channels of ``x`` (n, B·C_T, h, w), for every sample."""
    columns = x.view(-1, weight.shape[1], x.shape[2:].numel())
    return torch.bmm(weight.expand(len(columns), -1, -1), columns).view(len(x), -1, *x.shape[2:])


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Inner product of ``x`` and ``y``, float64."""
    if x.is_cuda:
        # vecdot would store the product there, and one sum of all would lose digits
        parts = zip(x.flatten().split(1 << 20), y.flatten().split(1 << 20), strict=True)
        return torch.stack([torch.dot(a, b) for a, b in parts]).sum(dtype=torch.float64)
    return torch.linalg.vecdot(x.flatten(2), y.flatten(2)).sum(dtype=torch.float64)


def _add_outer(result: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
    """Add the inner products of the channels of ``x`` (n, B·C, h, w) and ``y`` (n, B·K, h, w): (C, K)."""
    left, right = (z.view(-1, channels, z.shape[2:].numel()) for z, channels in zip((x, y), result.shape, strict=True))
    result.add_(torch.bmm(left, right.mT).sum(0))
