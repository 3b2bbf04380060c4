"""nnU-Net's planning rules for 3D networks: spacing, patch, strides, features, blocks and batch size.

Isensee F et al. nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. Nat Methods
18, 203-211 (2021); the residual encoder and its reference of memory: Isensee F et al. nnU-Net Revisited, MICCAI 2024.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

# an axis this much coarser than the others makes a data set anisotropic; so does a patch for the augmentation
ANISOTROPY = 3
# a feature map is halved while its side stays at least this, and its voxels are shorter than this times the shortest
_SMALLEST_SIDE, _LONGEST_VOXEL = 4, 2
_FEATURES, _MOST_FEATURES = 32, 320
_BLOCKS = (1, 3, 4, 6, 6, 6)
# elements of all feature maps of a patch that fill the memory at a batch of 2, in nnU-Net's unit
_REFERENCE, _REFERENCE_GIB, _BATCH = 680_000_000, 8, 2
# a batch holds at most this part of the data set's voxels: the rule of nnU-Net's plain planner, which leaves small data
# sets small batches; the planner of its residual encoder allows all of them
_LARGEST_BATCH = 0.05


@dataclass
class Plan:
    """What the rules give, axes x, y, z; ``reasons`` says why, by the task file's keys."""

    spacing: list[float]
    patch_size: list[int]
    strides: list[list[int]]
    kernels: list[list[int]]
    features: list[int]
    n_blocks: list[int]
    batch_size: int
    reasons: dict[str, str] = field(default_factory=dict)


def plan(
    spacings: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[float]] | np.ndarray,
    channels: int,
    classes: int,
    gpu_memory: float = _REFERENCE_GIB,
) -> Plan:
    """The plan for a data set.

    Args:
        spacings: of each case, in mm.
        shapes: of each case, in voxels.
        channels: of an image.
        classes: with background.
        gpu_memory: of the device that trains the network, in GiB.
    """
    spacing, why_spacing = target_spacing(np.asarray(spacings, float), np.asarray(shapes, float))
    resampled = np.round(np.asarray(shapes) * np.asarray(spacings) / spacing)
    median = np.maximum(np.median(resampled, 0), 1).astype(int)
    patch = _first_patch(spacing, median)
    budget = _REFERENCE * gpu_memory / _REFERENCE_GIB
    while True:
        strides, kernels, patch = topology(spacing, patch)
        features = [min(_FEATURES * 2**i, _MOST_FEATURES) for i in range(len(strides))]
        blocks = blocks_per_stage(len(strides))
        made = Plan(spacing.round(4).tolist(), patch, strides, kernels, features, blocks, _BATCH)
        elements = _elements(made, channels, classes)
        smaller = _smaller(spacing, patch, median)
        if elements <= budget or smaller is None:
            break
        patch = smaller
    held, whole = round(budget * _BATCH / elements), len(shapes) * math.prod(median.tolist()) / math.prod(patch)
    theirs, made.batch_size = (max(_BATCH, min(held, round(part * whole))) for part in (1, _LARGEST_BATCH))
    shown = " × ".join(map(str, median))
    made.reasons = {
        "pixdim": why_spacing,
        "patch_size": f"as large as {gpu_memory:g} GiB allow; the median case has {shown} voxels at this spacing",
        "strides": f"an axis is halved while its feature map keeps {_SMALLEST_SIDE} voxels and its voxels are "
        "less than twice as long as the shortest",
        "features": f"{_FEATURES}, doubled per stage, at most {_MOST_FEATURES}",
        "n_blocks": "those of nnU-Net's residual encoder",
        "batch_size": f"at most 5 % of all voxels, as in nnU-Net's plain planner, at least {_BATCH}; the planner of "
        f"its residual encoder takes {theirs}, as many as the memory holds",
    }
    return made


def blocks_per_stage(stages: int) -> list[int]:
    """Those of nnU-Net's residual encoder."""
    return [_BLOCKS[min(stage, len(_BLOCKS) - 1)] for stage in range(stages)]


def target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, str]:
    """The spacing to resample to, and why: the median, but finer along the coarse axis of an anisotropic set."""
    target, sides = np.median(spacings, 0), np.median(shapes, 0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > ANISOTROPY * target[others].max()
    if not (coarse and sides[worst] * ANISOTROPY < sides[others].min()):
        return target, "the median of the cases"
    finer = float(np.percentile(spacings[:, worst], 10))
    target[worst] = max(finer, target[others].max())
    return target, f"the median; along the coarse axis {'xyz'[worst]} the 10th percentile (anisotropic set)"


def topology(
    spacing: Sequence[float] | np.ndarray, patch: Sequence[int]
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Strides and kernels per stage, the first stride 1, and the patch with sides that the strides divide."""
    voxel, side, kernel = list(map(float, spacing)), list(patch), [1, 1, 1]
    strides, kernels = [[1, 1, 1]], []
    while True:
        large = [axis for axis in range(3) if side[axis] >= 2 * _SMALLEST_SIDE]
        shortest = min((voxel[axis] for axis in large), default=0.0)
        halved = [axis for axis in large if voxel[axis] < _LONGEST_VOXEL * shortest]
        if not halved or (len(halved) == 1 and side[halved[0]] < 3 * _SMALLEST_SIDE):
            break
        # nothing is convolved along an axis before the others have come near its voxels
        kernel = [3 if k == 3 or voxel[a] < _LONGEST_VOXEL * min(voxel) else 1 for a, k in enumerate(kernel)]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(3)])
        for axis in halved:
            voxel[axis], side[axis] = voxel[axis] * 2, math.ceil(side[axis] / 2)
    factors = np.prod(strides, axis=0).tolist()
    padded = [math.ceil(length / factor) * factor for length, factor in zip(patch, factors, strict=True)]
    return strides, [*kernels, [3, 3, 3]], padded


def _first_patch(spacing: np.ndarray, median: np.ndarray) -> list[int]:
    """A cube in millimetres with 256³ voxels, cut to the median case."""
    sides = (1 / spacing) * (256**3 / np.prod(1 / spacing)) ** (1 / 3)
    return np.minimum(np.round(sides), median).astype(int).tolist()


def _smaller(spacing: np.ndarray, patch: list[int], median: np.ndarray) -> list[int] | None:
    """One step less along the axis on which the patch sees most of the median case; None if nothing is left."""
    axis = int(np.argmax(np.array(patch) / median))
    tried = list(patch)
    tried[axis] -= math.prod(stride[axis] for stride in topology(spacing, patch)[0])
    if tried[axis] < 1:
        return None
    # the smaller patch may be halved less often, and a smaller step be enough
    smaller = list(patch)
    smaller[axis] -= math.prod(stride[axis] for stride in topology(spacing, tried)[0])
    return smaller


def _elements(made: Plan, channels: int, classes: int) -> int:
    """Elements of all feature maps for one patch, as the network itself counts them. No memory is taken."""
    with torch.device("meta"):
        network = ResidualEncoderUNet(
            channels,
            len(made.strides),
            made.features,
            nn.Conv3d,
            made.kernels,
            made.strides,
            made.n_blocks,
            classes,
            1,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"affine": True},
            nonlin=nn.LeakyReLU,
            deep_supervision=True,
        )
    return int(network.compute_conv_feature_map_size(made.patch_size))
