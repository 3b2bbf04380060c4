"""MONAI's sliding windows, whose network a GPU records: a small one computes faster than its kernels are launched."""

from functools import partial
from typing import Any

import monai.inferers
import torch
from torch import nn

from dcd_ext.inference.norms import FastInstanceNorms, has_fast_norms
from dcd_ext.recording import Recordings

# whole batches of windows, and the shorter last ones of a few images
_MOST = 4


class SlidingWindowInferer(monai.inferers.SlidingWindowInferer):
    """MONAI's; on a GPU a network with one output and no gradient is recorded as a CUDA graph and replayed.

    Recordings keep the memory of the largest pass. What cannot be recorded is computed as it is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recordings = Recordings(_MOST)

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Scores (N, C, X, Y, Z) of images (N, M, X, Y, Z)."""
        on_gpu = torch.device(self.sw_device or inputs.device).type == "cuda"
        plain = not (args or kwargs or self.with_coord or torch.is_grad_enabled())
        if on_gpu and plain and isinstance(network, nn.Module) and not _has_hooks(network):
            network = partial(self._replay, network, _state(network))
        return super().__call__(inputs, network, *args, **kwargs)

    def forget(self) -> None:
        """Free the memory of what was recorded."""
        self._recordings.clear()

    def _replay(self, network: nn.Module, state: tuple[Any, ...], windows: torch.Tensor) -> Any:
        half, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        fast = half and windows.ndim == 5 and has_fast_norms(windows.device)

        def compute(windows: torch.Tensor) -> Any:
            # the weights that autocast remembers would be freed before the replay
            with torch.autocast("cuda", dtype, half, cache_enabled=False), FastInstanceNorms():
                # the order in which half precision is fastest, unless other norms keep bringing it back
                # (``to``, for ``contiguous`` takes a single channel to be in that order as it is)
                return (network(windows.to(memory_format=torch.channels_last_3d) if fast else windows),)

        return self._recordings(compute, (state, half, dtype), windows)[0]


def _has_hooks(network: nn.Module) -> bool:
    """Whether a forward pass does more than compute its output: a replay would not call them."""
    return any(module._forward_hooks for module in network.modules())


def _state(network: nn.Module) -> tuple[Any, ...]:
    """What a recording depends on: it reads the weights where they were, and computes in the mode that was."""
    places = tuple(x.data_ptr() for x in (*network.parameters(), *network.buffers()))
    return id(network), places, tuple(module.training for module in network.modules())
