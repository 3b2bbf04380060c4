"""Pairs of student and teacher logits from network outputs of any supported form."""

import torch

from dcd_ext.losses.base import Output, compute_dtype
from dcd_ext.tensors import plain_tensor


def logit_pairs(student: Output, teacher: Output, heads: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first ``heads`` pairs of student and detached teacher logits, finest first, in one floating type >= float32.

    An output is (B, K, X, Y, Z), a list of such, or all heads stacked (B, heads, K, X, Y, Z) as MONAI's DynUNet does;
    ``heads=0`` means as many as the student has.

    Raises:
        ValueError: if an output is missing, has too few heads, or shapes differ.
    """
    students, teachers = _heads(student, "student"), _heads(teacher, "teacher")
    heads = heads or len(students)
    if min(len(students), len(teachers)) < heads:
        found = f"{len(students)} of the student and {len(teachers)} of the teacher"
        raise ValueError(f"{heads} deep supervision outputs are distilled, got {found}")
    pairs = []
    for i, (s, t) in enumerate(zip(students[:heads], teachers[:heads], strict=True)):
        if s.ndim != 5 or s.shape != t.shape:
            shapes = f"{tuple(s.shape)} and {tuple(t.shape)}"
            raise ValueError(f"student and teacher logits {i} must have one shape (B, K, X, Y, Z), got {shapes}")
        dtype = compute_dtype(s, t)
        pairs.append((s.to(dtype), t.detach().to(dtype)))
    return pairs


def _heads(output: Output, name: str) -> list[torch.Tensor]:
    if output is None or (not isinstance(output, torch.Tensor) and not output):
        raise ValueError(f"this loss needs the {name}'s logits, got {output}")
    if isinstance(output, torch.Tensor):
        tensor: torch.Tensor = plain_tensor(output)
        return list(tensor.unbind(1)) if tensor.ndim == 6 else [tensor]
    return [plain_tensor(x) for x in output]
