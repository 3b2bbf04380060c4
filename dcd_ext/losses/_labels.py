"""Base class of feature losses that use the label, and functions that read and resize labels."""

from collections.abc import Sequence

import torch

from dcd_ext.errors import UserError
from dcd_ext.losses._options import check_whole
from dcd_ext.losses.base import FeatureLoss, LossInputs
from dcd_ext.tensors import plain_tensor


class LabelledFeatureLoss(FeatureLoss):
    """A feature loss whose ``stage`` receives the label (B, X, Y, Z), with -1 at ignored voxels.

    Args:
        num_classes: K, background included.
        ignore_label: label value to ignore; negative values are always ignored.

    The other arguments are those of :class:`FeatureLoss`; the convolutions have a bias.
    """

    needs_label = True

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        num_classes: int,
        ignore_label: int | None,
        stage_weights: Sequence[float] | None,
        projection: str = "conv",
        train_projections: bool = True,
    ) -> None:
        check_whole("num_classes", num_classes, least=2)
        super().__init__(student_channels, teacher_channels, stage_weights, projection, True, train_projections)
        self.num_classes, self.ignore_label = num_classes, ignore_label

    def label_of(self, inputs: LossInputs) -> torch.Tensor:
        """The label (B, X, Y, Z), with -1 at ignored voxels."""
        return read_label(inputs.label, len(inputs.student_features[0]), self.num_classes, self.ignore_label)


def read_label(
    label: torch.Tensor | None, batch_size: int, num_classes: int, ignore_label: int | None = None
) -> torch.Tensor:
    """The label as integers (B, X, Y, Z), with -1 where it is negative or equals ``ignore_label``.

    Raises:
        ValueError: if the label is missing or of another shape.
        UserError: if it contains values that are not class numbers.
    """
    if label is None:
        raise ValueError("this loss needs the batch's label (B, 1, X, Y, Z), got None")
    label = plain_tensor(label.detach())
    if label.ndim != 5 or label.shape[1] != 1 or label.shape[0] != batch_size:
        raise ValueError(f"label must have shape ({batch_size}, 1, X, Y, Z), got {tuple(label.shape)}")
    classes = label[:, 0].long()
    ignored = classes < 0 if ignore_label is None else (classes < 0) | (classes == ignore_label)
    wrong = (label[:, 0] != classes) | ((classes >= num_classes) & ~ignored)
    if wrong.any():
        raise UserError(
            "label is not a class number",
            "label",
            f"whole numbers from 0 to {num_classes - 1}",
            label[:, 0][wrong][0].item(),
            "set num_classes to the network's, and ignore_label if voxels are to be ignored",
        )
    return classes.masked_fill(ignored, -1)


def nearest(label: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Resize ``label`` (B, X, Y, Z) to ``grid`` by nearest-neighbour selection of the voxels ``floor(i * X / X_i)``.

    Raises:
        ValueError: if the label is smaller than the grid.
    """
    for dim, side in enumerate(grid, start=1):
        full = label.shape[dim]
        if full < side:
            raise ValueError(f"label {tuple(label.shape[1:])} is coarser than the features {tuple(grid)}")
        if full != side:
            label = label.index_select(dim, torch.arange(side, device=label.device) * full // side)
    return label


def one_hot(label: torch.Tensor, num_classes: int, dtype: torch.dtype) -> torch.Tensor:
    """Indicator (B, K, N) of ``label`` (B, X, Y, Z); ignored voxels belong to no class."""
    classes = torch.arange(num_classes, device=label.device)[None, :, None]
    return (label.flatten(1)[:, None] == classes).to(dtype)
