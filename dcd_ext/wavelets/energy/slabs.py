"""``|P E|^2`` and its gradients for orthogonal wavelets, without ever holding the wide error ``E = W F_S + b - F_T``.

With ``P = α + σ Σ_k a_k^T a_k`` (``a_k`` the analysis map of a kept or removed subband, α = 1, σ = -1 if removed),
``c_k = a_k E`` and ``d_k = 2ασ c_k + Σ_l a_k a_l^T c_l``::

    P P E = α E + Σ_k a_k^T d_k          |P E|^2 = α |E|^2 + Σ_k <c_k, d_k>

so that the wide error is analysed but never synthesised; the gradients follow in the coefficients' domain::

    d/dF_S = 2 W^T P P E = 2 (α W^T E + Σ_k a_k^T (W^T d_k))        synthesis of the student's few channels
    d/dW   = 2 (P P E) F_S^T = 2 (α E F_S^T + Σ_k d_k (a_k F_S)^T)  analysis of the student's few channels

``E`` is made in slabs of a few planes that stay in cache, reduced along H and W at once, and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dcd_ext.wavelets.energy.plan import Plan, make_plan

__all__ = ["Slabs", "make_slabs"]

# Enough planes per slab to keep all cores (or the GPU) busy, few enough to stay in the last-level cache.
_SLAB_BYTES = {"cpu": 4 << 20}
_SLAB_BYTES_ELSEWHERE = 256 << 20

# Share of |E|^2 below which the energy of the details is computed without a difference: float32 then still leaves it
# four digits.
_SMALL_SHARE = 1e-3


class Slabs:
    """The engine of an orthogonal plan; see the module's text for the mathematics."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

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
        sample = _Sample(student, teacher, mixing, self.plan, scale)
        energy, of_identity = sample.run(grad_student, grad_mixing)
        # Where smooth content drowns the details, their energy is lost in the rounding of the difference; take the
        # long way for the value. (The gradients are no such difference.)
        if self.plan.identity and bool(energy < _SMALL_SHARE * of_identity):
            return sample.synthesised_energy()
        return energy


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

    def run(
        self, grad_student: torch.Tensor | None, grad_mixing: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``|P E|^2`` and ``α |E|^2``, float64; fills ``grad_student`` and adds to ``grad_mixing``."""
        of_identity = torch.zeros((), dtype=torch.float64, device=self.mixing.device)
        depth, (width, channels) = self.student.shape[1], self.mixing.shape
        of_error = self.plan.new_planes(depth, width)
        of_student = [] if grad_mixing is None else self.plan.new_planes(depth, channels)
        for start, inputs, error in self._slabs():
            part = slice(start, start + len(error))
            self.plan.planes(error, [p[part] for p in of_error])
            if grad_mixing is not None:
                self.plan.planes(inputs, [p[part] for p in of_student])
            if self.plan.identity:
                of_identity += self._identity_part(start, inputs, error, grad_student, grad_mixing)
        found = self.plan.along_depth(of_error)
        change = self.plan.gram.apply(found)
        energy = of_identity.clone()
        for c, d in zip(found, change, strict=True):
            d.add_(c, alpha=2 * self.plan.identity * self.plan.sign)
            energy += torch.linalg.vecdot(c.flatten(2), d.flatten(2)).sum(dtype=torch.float64)
        if grad_mixing is not None:
            for s, d in zip(self.plan.along_depth(of_student), change, strict=True):
                grad_mixing.add_(torch.bmm(d.flatten(2), s.flatten(2).mT).sum(0), alpha=self.scale)
        if grad_student is not None:
            self._synthesise(change, grad_student)
        return energy, of_identity

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
        mixed = self.plan.along_depth_transposed(mixed)
        for start in range(0, self.student.shape[1], self.step):
            part = slice(start, start + self.step)
            planes = self.plan.planes_transposed([m[part] for m in mixed]).transpose(0, 1)
            if self.plan.identity:
                grad_student[:, part] += planes
            else:
                grad_student[:, part] = planes

    def synthesised_energy(self) -> torch.Tensor:
        """``|P E|^2`` from P E itself, a few channels at a time."""
        energy = torch.zeros((), dtype=torch.float64, device=self.mixing.device)
        inputs = torch.cat([self.student, torch.ones_like(self.student[:1])]).to(self.mixing.dtype).transpose(0, 1)
        for start in range(0, len(self.mixing), 4):
            part = slice(start, start + 4)
            error = (self.mixing[part] @ inputs.flatten(2)).unflatten(2, inputs.shape[2:])
            error -= self.teacher[part].transpose(0, 1)
            planes = self.plan.new_planes(*error.shape[:2])
            self.plan.planes(error, planes)
            terms = self.plan.along_depth_transposed(self.plan.along_depth(planes))
            error += self.plan.sign * self.plan.planes_transposed(terms)
            energy += torch.linalg.vecdot(error.flatten(2), error.flatten(2)).sum(dtype=torch.float64)
        return energy


def make_slabs(
    sides: tuple[int, int, int],
    wavelet: str,
    levels: int,
    mode: str,
    keys: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Slabs | None:
    """The engine where the plan is orthogonal, else None."""
    plan = make_plan(sides, wavelet, levels, mode, keys, device, dtype)
    return None if plan is None else Slabs(plan)
