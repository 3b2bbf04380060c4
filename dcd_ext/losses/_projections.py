"""The 1×1×1 convolutions that lift student features to the teacher's width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["make_projection", "project"]


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
    assert isinstance(projection, nn.Conv3d) and projection.bias is not None
    return F.conv3d(x, projection.weight.to(x.dtype), projection.bias.to(x.dtype))
