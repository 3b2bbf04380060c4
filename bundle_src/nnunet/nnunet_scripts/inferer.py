"""Sliding windows where nnU-Net v2 puts them, blended as it blends them."""

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import SlidingWindowInferer
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import gaussian_filter

# the blending weights' standard deviation per side of the patch, and their maximum
_SIGMA, _PEAK = 1 / 8, 10


def window_starts(size: int, patch: int, overlap: float = 0.5) -> list[int]:
    """First voxels of the fewest windows that overlap by at least ``overlap``, spread evenly from end to end."""
    count = int(np.ceil((size - patch) / (patch * (1 - overlap)))) + 1
    step = (size - patch) / max(count - 1, 1)
    return [int(np.round(step * number)) for number in range(count)]


@lru_cache(maxsize=2)
def blending_weights(patch: tuple[int, ...]) -> torch.Tensor:
    """A Gaussian around voxel ``side // 2`` in float16, and its smallest positive value where that gives 0."""
    delta = np.zeros(patch)
    delta[tuple(side // 2 for side in patch)] = 1
    weights = gaussian_filter(delta, [side * _SIGMA for side in patch], mode="constant")
    half = torch.from_numpy(weights / (weights.max() / _PEAK)).half()
    half[half == 0] = half[half > 0].min()
    return half


class WindowInferer(SlidingWindowInferer):
    """Logits (1, K, X, Y, Z) in float16, as nnU-Net sums and rounds them, without test-time mirroring.

    Smaller images are padded with 0 on both sides. Windows run one by one. Of an ensemble (a network with ``members``)
    each member predicts the whole image before their logits are averaged.

    Args:
        roi_size: the patch.
        overlap: of neighbouring windows, as a part of the patch.
        kwargs: further arguments of ``SlidingWindowInferer``; only ``device``, where the sums are kept, counts.
    """

    def __init__(self, roi_size: Sequence[int], overlap: float = 0.5, **kwargs: Any) -> None:
        super().__init__(roi_size, overlap=overlap, **kwargs)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        members = list(getattr(network, "members", [network]))
        image = convert_to_tensor(inputs[0], track_meta=False)
        total = self._predict(image, members[0])
        for member in members[1:]:
            total += self._predict(image, member)
        if len(members) > 1:
            total /= len(members)
        return convert_to_dst_type(total[None], inputs, dtype=total.dtype, device=total.device)[0]

    def _predict(self, image: torch.Tensor, network: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Logits (K, X, Y, Z) of one network for an image (C, X, Y, Z)."""
        patch = tuple(self.roi_size)
        missing = [max(0, side - size) for side, size in zip(patch, image.shape[1:], strict=True)]
        before = [number // 2 for number in missing]
        pads = [side for low, number in zip(before, missing, strict=True) for side in (number - low, low)]
        padded = F.pad(image, pads[::-1])
        device = torch.device(self.device or image.device)
        weights = blending_weights(patch).to(device)
        sums, total = None, torch.zeros(padded.shape[1:], dtype=torch.half, device=device)
        starts = (window_starts(size, side, self.overlap) for size, side in zip(padded.shape[1:], patch, strict=True))
        for corner in itertools.product(*starts):
            window = tuple(slice(start, start + side) for start, side in zip(corner, patch, strict=True))
            logits = network(padded[(slice(None), *window)][None])[0].to(device)
            if sums is None:
                sums = torch.zeros((len(logits), *padded.shape[1:]), dtype=torch.half, device=device)
            sums[(slice(None), *window)] += logits * weights
            total[window] += weights
        assert sums is not None
        sums /= total
        if sums.isinf().any():
            raise ValueError("logits exceed the range of float16, in which nnU-Net sums them")
        inside = (slice(low, low + size) for low, size in zip(before, image.shape[1:], strict=True))
        return sums[(slice(None), *inside)]
