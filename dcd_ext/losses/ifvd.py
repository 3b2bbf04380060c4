"""Intra-class feature variation distillation: similarity of each voxel to the mean of its class."""

from collections.abc import Sequence

import torch

from dcd_ext.losses._labels import LabelledFeatureLoss, nearest, one_hot
from dcd_ext.losses.base import Terms

_EPS = 1e-8


class IFVDLoss(LabelledFeatureLoss):
    """``mean over voxels of (m^S - m^T)²``, ``m`` = cosine of a voxel's feature and its class's mean feature.

    The mean is per sample, background is a class, and the gradient flows through both a feature and the mean it is
    part of. A class's similarity map has no channels, so student and teacher need no common width.

    Source: Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation", ECCV 2020,
    and their code. Certain: the loss. Inferred: the stages (the original has one, before the classifier; all encoder
    stages as in the DCD authors' later framework) and the weight (originally 200, together with two other losses).
    That framework puts a 1×1×1 convolution before it, which the original does not have; nor does this.

    Args:
        num_classes: K, background included.
        ignore_label: label value to ignore; negative values are always ignored.
        balance_classes: average over each present class first, then over these (an extension of ours: background is
            most of any patch).

    Other arguments and errors: see :class:`~dcd_ext.losses.base.FeatureLoss`.
    """

    projects = False

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        num_classes: int,
        ignore_label: int | None = None,
        balance_classes: bool = False,
        *,
        stage_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(student_channels, teacher_channels, num_classes, ignore_label, stage_weights)
        self.balance_classes = balance_classes

    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        assert label is not None
        classes = one_hot(nearest(label, student.shape[2:]), self.num_classes, student.dtype)
        with torch.no_grad():
            target = _similarity(teacher.flatten(2), classes)
        error = (_similarity(student.flatten(2), classes) - target).square()
        if not self.balance_classes:
            return {"intra_class": error.mean()}
        sizes = classes.sum(2)
        per_class = torch.bmm(classes, error[:, :, None])[:, :, 0] / sizes.clamp_min(1)
        return {"intra_class": per_class.sum() / (sizes > 0).sum().clamp_min(1)}


def _similarity(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cosine (B, N) of each voxel of ``x`` (B, C, N) and its class's mean; 0 for voxels of no class in (B, K, N)."""
    sizes = classes.sum(2, keepdim=True)
    means = torch.bmm(classes, x.mT) / (sizes + 1e-6)
    # products with all K means and the choice of one need K maps; gathering the means would need C
    products = torch.bmm(means, x).mul(classes).sum(1)
    norms = torch.bmm(torch.linalg.vector_norm(means, dim=2)[:, None], classes)[:, 0]
    lengths = torch.linalg.vector_norm(x, dim=1)
    return products / (lengths.clamp_min(_EPS) * norms.clamp_min(_EPS))
