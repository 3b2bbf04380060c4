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

import torch

from dcd_ext.wavelets.energy.plan import Plan

# Enough planes per slab to keep all cores (or the GPU) busy, few enough to stay in the last-level cache.
_SLAB_BYTES = {"cpu": 4 << 20}
_SLAB_BYTES_ELSEWHERE = 256 << 20


def sample_energy(
    plan: Plan,
    student: torch.Tensor,
    teacher: torch.Tensor,
    mixing: torch.Tensor,
    scale: float,
    grad_student: torch.Tensor | None,
    grad_mixing: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``|P E|²`` of one sample and its part ``α |E|²``, float64 scalars.

    Args:
        plan: for the grid (D, H, W).
        student, teacher: F_S (C_S, D, H, W) and F_T (C_T, D, H, W), any floating type.
        mixing: (W, b) side by side (C_T, C_S + 1), of the type to compute in.
        scale: factor of the gradients of ``|P E|²``.
        grad_student, grad_mixing: where the gradients are added, unless None.
    """
    depth, (wide, narrow) = teacher.shape[1], mixing.shape
    of_identity = torch.zeros((), dtype=torch.float64, device=mixing.device)
    of_error = plan.new_planes(depth, wide)
    of_student = [] if grad_mixing is None else plan.new_planes(depth, narrow)
    weight = scale * mixing[:, :-1].mT
    for part, inputs, error in _slabs(student, teacher, mixing):
        plan.planes(error, [p[part] for p in of_error])
        if grad_mixing is not None:
            plan.planes(inputs, [p[part] for p in of_student])
        if plan.identity:
            flat = error.flatten(2)
            of_identity += torch.linalg.vecdot(flat, flat).sum(dtype=torch.float64)
            if grad_mixing is not None:
                grad_mixing.add_(torch.bmm(flat, inputs.flatten(2).mT).sum(0), alpha=scale)
            if grad_student is not None:
                grad_student[:, part] += _mix(weight, error).transpose(0, 1)
    coefficients = plan.along_depth(of_error)
    del of_error
    change = plan.gram.apply(coefficients)
    energy = of_identity.clone()
    for c, d in zip(coefficients, change, strict=True):
        d.add_(c, alpha=2 * plan.identity * plan.sign)
        energy += torch.linalg.vecdot(c.flatten(2), d.flatten(2)).sum(dtype=torch.float64)
    if grad_mixing is not None:
        for s, d in zip(plan.along_depth(of_student), change, strict=True):
            grad_mixing.add_(torch.bmm(d.flatten(2), s.flatten(2).mT).sum(0), alpha=scale)
    if grad_student is not None:
        mixed = plan.along_depth_transposed([_mix(weight, d) for d in change])
        for part in _parts(teacher, mixing):
            grad_student[:, part] += plan.planes_transposed([m[part] for m in mixed]).transpose(0, 1)
    return energy, of_identity


def _slabs(
    student: torch.Tensor, teacher: torch.Tensor, mixing: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Per slab its planes, [F_S; 1] (s, C_S + 1, H, W) and E (s, C_T, H, W); overwritten by the next one."""
    parts = _parts(teacher, mixing)
    step, (wide, narrow), sides = parts[0].stop, mixing.shape, teacher.shape[2:]
    inputs, error = mixing.new_ones(step, narrow, *sides), mixing.new_empty(step, wide, *sides)
    for part in parts:
        s = part.stop - part.start
        inputs[:s, :-1] = student[:, part].transpose(0, 1)
        error[:s] = teacher[:, part].transpose(0, 1)
        error[:s].flatten(2).baddbmm_(mixing.expand(s, -1, -1), inputs[:s].flatten(2), beta=-1)
        yield part, inputs[:s], error[:s]


def _parts(teacher: torch.Tensor, mixing: torch.Tensor) -> list[slice]:
    depth, height, width = teacher.shape[1:]
    budget = _SLAB_BYTES.get(mixing.device.type, _SLAB_BYTES_ELSEWHERE)
    step = min(depth, max(1, budget // (sum(mixing.shape) * height * width * mixing.element_size())))
    return [slice(i, min(i + step, depth)) for i in range(0, depth, step)]


def _mix(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``weight`` (C, C_T) times the channels of ``x`` (n, C_T, h, w)."""
    return torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])
