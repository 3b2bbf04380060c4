"""Distillation of the output: the student's softened class probabilities follow the teacher's, voxel by voxel."""

import torch
import torch.nn.functional as F

from dcd_ext.losses._options import check_number
from dcd_ext.losses.base import DistillationLoss, LossInputs, Output, Terms, compute_dtype
from dcd_ext.networks import deep_supervision_weights
from dcd_ext.tensors import plain_tensor


class LogitsLoss(DistillationLoss):
    """``T² · mean over voxels of KL(softmax(z^T / T) || softmax(z^S / T))``.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, 2015, per
    voxel as is usual for segmentation. Certain: the equation, ``T²`` included. Not published: temperature and weight
    of the DCD paper's row "Logits" and of the KD-Segmentator (arXiv 2601.09191), for which this loss serves as well;
    ``temperature=2`` is the default of the DCD authors' later framework. Distilling the deep supervision outputs and
    the form for sigmoid outputs are extensions of ours.

    Args:
        temperature: T > 0; larger values weigh the unlikely classes more.
        deep_supervision: distil all outputs, with the weights of the segmentation loss (1, 1/2, ..., last 0, summing
            to 1); False: the finest only.
        sigmoid: outputs are overlapping regions: the sum over channels of the KL of each Bernoulli distribution.

    Raises:
        UserError: for a temperature that is not positive.
        ValueError: when called without outputs or with ones that differ.
    """

    needs_features = False
    needs_teacher_output = True

    def __init__(self, temperature: float = 2.0, deep_supervision: bool = False, sigmoid: bool = False) -> None:
        super().__init__()
        check_number("temperature", temperature)
        self.temperature, self.deep_supervision, self.sigmoid = temperature, deep_supervision, sigmoid

    def terms(self, inputs: LossInputs) -> list[Terms]:
        """One stage per distilled output."""
        pairs = logit_pairs(inputs.student_output, inputs.teacher_output, 0 if self.deep_supervision else 1)
        weights = deep_supervision_weights(len(pairs))
        divergence = _bernoulli if self.sigmoid else _categorical
        t = self.temperature
        return [{"kl": w * t**2 * divergence(s / t, z / t)} for w, (s, z) in zip(weights, pairs, strict=True) if w > 0]


def _categorical(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of the KL over the class axis of (B, K, ...)."""
    log_q, log_p = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    return (log_p.exp() * (log_p - log_q)).sum() * (student.shape[1] / student.numel())


def _bernoulli(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of the sum over channels of the KL between two Bernoulli distributions."""
    inside, outside = (
        torch.sigmoid(sign * teacher) * (F.logsigmoid(sign * teacher) - F.logsigmoid(sign * student))
        for sign in (1, -1)
    )
    return (inside + outside).sum() * (student.shape[1] / student.numel())


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
