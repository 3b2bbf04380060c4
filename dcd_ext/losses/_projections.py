"""The 1×1×1 convolutions that lift student features to the teacher's width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["make_projection", "mixing", "project"]


def make_projection(student: int, teacher: int, kind: str, generator: torch.Generator) -> nn.Module:
    """A ``Conv3d(student, teacher, 1)`` with PyTorch's default initialisation drawn from ``generator``, or identity.

    The global random state stays untouched: a run with weight 0 must equal a plain run bit for bit.
    """
    if kind == "identity":
        return nn.Identity()
    conv = nn.utils.skip_init(nn.Conv3d, student, teacher, 1)
    bound = 1 / math.sqrt(student)
    with torch.no_grad():
        for parameter in (conv.weight, conv.bias):
            assert parameter is not None
            parameter.uniform_(-bound, bound, generator=generator)
    return conv


def project(x: torch.Tensor, projection: nn.Module) -> torch.Tensor:
    """Apply a projection in the type of ``x``, whatever the type of its parameters."""
    if isinstance(projection, nn.Identity):
        return x
    weight, bias = mixing(projection, x, x.dtype)
    return F.conv3d(x, weight[:, :, None, None, None], bias)


def mixing(projection: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (C_T, C_S) and bias (C_T) of a projection of ``x`` (B, C_S, ...), as ``dtype``."""
    if isinstance(projection, nn.Identity):
        return torch.eye(x.shape[1], dtype=dtype, device=x.device), x.new_zeros(x.shape[1], dtype=dtype)
    assert isinstance(projection, nn.Conv3d) and projection.bias is not None
    return projection.weight.flatten(1).to(dtype), projection.bias.to(dtype)
