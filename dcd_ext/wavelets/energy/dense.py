"""``|P E|²`` and its gradients on a small grid, where ``P`` is one matrix of voxels by voxels."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from dcd_ext.wavelets.bands import Transform
from dcd_ext.wavelets.energy.slabs import Energy
from dcd_ext.wavelets.projection import DetailProjection

# Voxels up to which one large product is faster than tens of small ones.
_MAX_VOXELS = {"cpu": 800}
_MAX_VOXELS_ELSEWHERE = 5000


class DensePlan(NamedTuple):
    """``P`` (V, V) for the voxels of one grid, to be multiplied from the right, and a name."""

    matrix: torch.Tensor
    name: object

    def energy(
        self, student: torch.Tensor, teacher: torch.Tensor, mixing: torch.Tensor, of_student: bool, of_mixing: bool
    ) -> Energy:
        """As :func:`dcd_ext.wavelets.energy.slabs.group_energy`."""
        samples, channels, voxels = len(teacher), student.shape[1], teacher.shape[2:].numel()
        inputs = mixing.new_ones(samples, mixing.shape[1], voxels)
        inputs[:, :channels] = student.flatten(2)
        error = teacher.flatten(2).to(mixing.dtype, copy=True)
        error.baddbmm_(mixing.expand(samples, -1, -1), inputs, beta=-1)
        details = error.flatten(0, 1) @ self.matrix
        energy = details.square().sum(dtype=torch.float64)
        change = (details @ self.matrix.mT).view_as(error)
        weight = mixing[:, :channels].mT.expand(samples, -1, -1)
        grad_student = torch.bmm(weight, change).view(samples, channels, *teacher.shape[2:]) if of_student else None
        grad_mixing = torch.bmm(change, inputs.mT).sum(0) if of_mixing else None
        share = energy / error.square().sum(dtype=torch.float64).clamp_min(torch.finfo(torch.float64).tiny)
        return Energy(energy, share, grad_student, grad_mixing)


def is_small(sides: Sequence[int], device: torch.device) -> bool:
    """Whether a grid of ``sides`` (D, H, W) is one for this plan."""
    return math.prod(sides) <= _MAX_VOXELS.get(device.type, _MAX_VOXELS_ELSEWHERE)


@lru_cache(maxsize=16)
def make_dense_plan(
    sides: tuple[int, int, int], transform: Transform, device: torch.device, dtype: torch.dtype
) -> DensePlan:
    """The plan for volumes of ``sides`` (D, H, W)."""
    with torch.inference_mode(False), torch.no_grad():
        impulses = torch.eye(math.prod(sides), dtype=torch.float64, device=device).unflatten(1, sides)
        return DensePlan(DetailProjection(*transform)(impulses).flatten(1).to(dtype), object())
