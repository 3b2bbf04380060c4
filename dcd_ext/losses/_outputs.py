"""Read network outputs and labels, whatever form they come in."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dcd_ext.errors import UserError
from dcd_ext.tensors import plain_tensor

__all__ = ["logit_pairs", "nearest", "one_hot", "read_label"]

Output = torch.Tensor | Sequence[torch.Tensor] | None


def logit_pairs(student: Output, teacher: Output, heads: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first ``heads`` pairs of student and detached teacher logits, finest first, in one floating type >= float32.

    Args:
        student: (B, K, X, Y, Z), a list of such, or all heads stacked (B, heads, K, X, Y, Z) as MONAI's DynUNet does.
        teacher: the same of the teacher.
        heads: how many; 0: as many as the student has.

    Raises:
        UserError: if an output is missing, has too few heads, or shapes differ.
    """
    students, teachers = _heads(student, "student"), _heads(teacher, "teacher")
    heads = heads or len(students)
    if min(len(students), len(teachers)) < heads:
        raise UserError(
            "too few deep supervision outputs",
            "student_output, teacher_output",
            f"{heads} in each",
            f"{len(students)} and {len(teachers)}",
            "switch deep supervision on in both networks, or distil the main output only",
        )
    pairs = []
    for i, (s, t) in enumerate(zip(students[:heads], teachers[:heads], strict=True)):
        if s.ndim != 5 or s.shape != t.shape:
            raise UserError(
                "student and teacher logits differ",
                f"output {i}",
                f"shape (B, K, X, Y, Z) as the teacher's {tuple(t.shape)}",
                tuple(s.shape),
                "build both networks for the same classes and give them the same batch",
            )
        dtype = torch.promote_types(torch.promote_types(s.dtype, t.dtype), torch.float32)
        pairs.append((s.to(dtype), t.detach().to(dtype)))
    return pairs


def _heads(output: Output, name: str) -> list[torch.Tensor]:
    if output is None or (not isinstance(output, torch.Tensor) and not output):
        raise UserError(
            f"{name} output is missing", f"{name}_output", "logits", output, "pass it; the loss's needs_* say what"
        )
    if isinstance(output, torch.Tensor):
        tensor: torch.Tensor = plain_tensor(output)
        return list(tensor.unbind(1)) if tensor.ndim == 6 else [tensor]
    return [plain_tensor(x) for x in output]


def read_label(
    label: torch.Tensor | None, batch_size: int, num_classes: int, ignore_label: int | None = None
) -> torch.Tensor:
    """The label as whole numbers (B, X, Y, Z), with -1 where it is negative or ``ignore_label``.

    Raises:
        UserError: if the label is missing, of another shape, or holds other values than class numbers.
    """
    if label is None:
        raise UserError("label is missing", "label", "class numbers (B, 1, X, Y, Z)", None, "pass the batch's label")
    label = plain_tensor(label.detach())
    if label.ndim != 5 or label.shape[1] != 1 or label.shape[0] != batch_size:
        found = tuple(label.shape)
        raise UserError(
            "label does not fit", "label", f"shape ({batch_size}, 1, X, Y, Z)", found, "pass one class number per voxel"
        )
    classes = label[:, 0].long()
    ignored = classes < 0 if ignore_label is None else (classes < 0) | (classes == ignore_label)
    wrong = (label[:, 0] != classes) | ((classes >= num_classes) & ~ignored)
    if wrong.any():
        raise UserError(
            "label is not a class number",
            "label",
            f"whole numbers from 0 to {num_classes - 1}",
            label[:, 0][wrong][0].item(),
            "set num_classes to the network's, and ignore_label if voxels are to be left out",
        )
    return classes.masked_fill(ignored, -1)


def nearest(label: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Resize ``label`` (B, X, Y, Z) to ``grid`` by picking voxels ``floor(i * X / X_i)``; nothing is averaged.

    Raises:
        UserError: if the label is smaller than the grid.
    """
    for dim, side in enumerate(grid, start=1):
        full = label.shape[dim]
        if full < side:
            raise UserError(
                "label is coarser than the features",
                "label",
                f"at least {tuple(grid)} voxels",
                tuple(label.shape[1:]),
                "pass the label at full resolution",
            )
        if full != side:
            label = label.index_select(dim, torch.arange(side, device=label.device) * full // side)
    return label


def one_hot(label: torch.Tensor, num_classes: int, dtype: torch.dtype) -> torch.Tensor:
    """Indicator (B, K, N) of ``label`` (B, X, Y, Z); ignored voxels belong to no class."""
    classes = torch.arange(num_classes, device=label.device)[None, :, None]
    return (label.flatten(1)[:, None] == classes).to(dtype)
