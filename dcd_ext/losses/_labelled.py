"""Losses over features that look at the class of every voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dcd_ext.losses._options import check_classes
from dcd_ext.losses._outputs import read_label
from dcd_ext.losses.base import Batch, FeatureLoss

__all__ = ["LabelledFeatureLoss"]


class LabelledFeatureLoss(FeatureLoss):
    """A feature loss whose ``stage`` is given the label (B, X, Y, Z), -1 where it is to be ignored.

    Args:
        student_channels: the student's channels per stage.
        teacher_channels: the teacher's.
        num_classes: K, background included.
        ignore_label: label value to leave out, as are negative ones.
        stage_weights: see :class:`FeatureLoss`, as the further ones.
        projection: "conv" (with bias), "identity" or "none".
        train_projections: False freezes the projections as they are drawn.
    """

    needs_label = True

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        num_classes: int,
        ignore_label: int | None,
        stage_weights: Sequence[float] | None,
        projection: str,
        train_projections: bool = True,
    ) -> None:
        check_classes(num_classes)
        super().__init__(student_channels, teacher_channels, stage_weights, projection, True, train_projections)
        self.num_classes, self.ignore_label = num_classes, ignore_label

    def label_of(self, batch: Batch) -> torch.Tensor:
        """(B, X, Y, Z), -1 where ignored."""
        return read_label(batch.label, len(batch.student_features[0]), self.num_classes, self.ignore_label)
