"""Distillation of features: mean squared error through a 1×1×1 convolution."""

import torch

from dcd_ext.losses._projections import over_slabs, project
from dcd_ext.losses.base import FeatureLoss, Terms


class FitNetLoss(FeatureLoss):
    """``sum over stages of w_i · mean (W_i F_i^S - F_i^T)²``, with ``w_i`` = 1 / number of stages.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, as one more term during the whole
    training. Certain: the mean squared error through a trained regressor. Inferred: that the DCD paper's row "Feature"
    (which cites FitNets) used all encoder stages and a convolution without bias, as its authors' later framework does;
    their simpler variant is the last stage only, with bias. The original trains the hint alone first and has a
    factor 1/2.

    Arguments and errors: see :class:`~dcd_ext.losses.base.FeatureLoss`; ``normalize="teacher"`` divides each stage's
    error by ``mean (F_i^T)²``.
    """

    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        projection = self.projections[i]

        def squares(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return (project(projection, s) - t).square().sum()

        sums = over_slabs(squares, student.flatten(2), teacher.flatten(2))
        return {"mse": torch.stack(sums).sum() / teacher.numel()}
