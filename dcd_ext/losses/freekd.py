"""FreeKD: distillation of wavelet details, weighted by tuned frequency prompts."""

import math
from collections.abc import Sequence

import torch

from dcd_ext.losses._options import check_number, check_whole
from dcd_ext.losses._projections import project, recompute, slab_size
from dcd_ext.losses.base import FeatureLoss, Terms
from dcd_ext.losses.prompts import haar_levels, load_prompts, mean_masks, split


class FreeKDLoss(FeatureLoss):
    """``sum over stages of [sum over levels j of mean |(d_j^S - d_j^T) · M_j|] + mse_weight · mean (F^S - F^T)²``.

    ``d_j`` are the seven details of level j of a 3D Haar transform, ``F^S`` is the projected student feature, and
    ``M_j = mean over tokens of sigmoid(P_j · D_j)`` with the teacher's ``D_j`` = sum of its seven details.

    The prompts ``P`` are tuned beforehand with the teacher, see :class:`dcd_ext.distill.PromptTuner`; here
    they are constants.

    Source: Zhang et al., "FreeKD: Knowledge Distillation via Semantic Frequency Prompt", CVPR 2024, and their code for
    detection in 2D. Certain: the masked L1 of the details, without the approximation, beside a plain MSE (weight 5
    there). Inferred: everything in 3D, the prompt tuning's recipe, and the weights for segmentation. Missing, because
    their code does not have it: the position-aware relational loss that the paper describes.

    Args:
        prompts: file written by ``PromptTuner.save``; or "none" for the reduced variant ``M = 1``, which is not
            FreeKD and must be reported as "FreeKD without prompts".
        levels: Haar levels J; limited per stage by floor(log2(shortest side)).
        mse_weight: weight of the plain MSE; the details have weight 1.
        stage_weights: weight per stage; None: their sum.

    Other arguments and errors: see :class:`~dcd_ext.losses.base.FeatureLoss`; the convolutions have a bias.

    Attributes:
        stage_levels: after a call, the levels used per stage.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        prompts: str,
        levels: int = 3,
        mse_weight: float = 1.0,
        *,
        stage_weights: Sequence[float] | None = None,
        projection: str = "conv",
        train_projections: bool = True,
    ) -> None:
        weights = [1.0] * len(student_channels) if stage_weights is None else stage_weights
        super().__init__(student_channels, teacher_channels, weights, projection, True, train_projections)
        check_whole("levels", levels)
        check_number("mse_weight", mse_weight, inclusive=True)
        self.levels, self.mse_weight = levels, mse_weight
        self.has_prompts = prompts != "none"
        self.stage_levels = [0] * len(self.teacher_channels)
        if self.has_prompts:
            # buffers: moved and saved with the module, never trained
            for i, prompt in enumerate(load_prompts(prompts, self.teacher_channels, levels)):
                self.register_buffer(f"prompt_{i}", prompt)

    def extra_repr(self) -> str:
        variant = "tuned prompts" if self.has_prompts else "reduced variant: no prompts"
        return f"levels={self.levels}, mse_weight={self.mse_weight}, {variant}"

    def stage(self, i: int, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> Terms:
        self.stage_levels[i] = levels = haar_levels(teacher.shape[2:], self.levels)
        prompt = self.get_buffer(f"prompt_{i}") if self.has_prompts else None
        grids = [[-(-n // 2**j) for n in teacher.shape[2:]] for j in range(1, levels + 1)]
        sizes = [7 * len(teacher) * teacher.shape[1] * math.prod(grid) for grid in grids]

        def slab(s: torch.Tensor, t: torch.Tensor, masks: Sequence[torch.Tensor | None]) -> torch.Tensor:
            error = project(self.projections[i], s.flatten(2)).unflatten(2, s.shape[2:]) - t
            return torch.stack((_details(error, masks, sizes), error.square().sum() / teacher.numel()))

        # the transform's blocks never cross slabs of a multiple of 2^levels planes
        planes = slab_size(teacher, 2, 2**levels)
        sums = []
        for s, t in zip(student.split(planes, 2), teacher.split(planes, 2), strict=True):
            masks = [None] * levels if prompt is None else mean_masks(prompt, t, levels)
            sums.append(recompute(slab, s, t, masks))
        frequency, mse = torch.stack(sums).sum(0)
        return {"frequency": frequency, "mse": self.mse_weight * mse}


def _details(error: torch.Tensor, masks: Sequence[torch.Tensor | None], sizes: Sequence[int]) -> torch.Tensor:
    """Sum over levels of the sum of the masked magnitudes of details, divided by ``sizes``.

    The transform is linear, so that the difference's details are the details' difference.
    """
    total = error.new_zeros(())
    for mask, size in zip(masks, sizes, strict=True):
        error, details = split(error)
        magnitude = torch.stack([d.abs() for d in details]).sum(0)
        total = total + (magnitude if mask is None else magnitude * mask).sum() / size
    return total
