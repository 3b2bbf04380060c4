"""Keep a picture of the detail that a network's encoder sees, for the comparison report."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode
from monai.transforms import ResizeWithPadOrCrop
from torch import nn

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.io import write_atomically
from dcd_ext.tensors import plain_tensor
from dcd_ext.wavelets import DetailProjection
from dcd_ext.wavelets.axis_maps import max_levels


class DetailMaps:
    """Writes ``<output_dir>/detail_maps.npz`` from the first case of an evaluation.

    The first case is the same for all networks evaluated on a fold, so that their maps can be laid side by side. The
    file has ``case``, ``image`` (M, X, Y) and ``stage_<i>`` (X_i, Y_i): central slices along the last axis of the
    centre of the preprocessed image, and of the root mean square over channels of the detail projection of each
    stage. ``taps`` are dotted paths of the stages' modules in the network, which may be wrapped; ``patch_size`` is the
    size (X, Y, Z) of the centre that it sees.
    """

    def __init__(self, output_dir: str, network: nn.Module, taps: Sequence[str], patch_size: Sequence[int]) -> None:
        self.output_dir = output_dir
        self.network = network
        self.taps = list(taps)
        self.patch_size = list(patch_size)
        self._written = False

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.SupervisedEvaluator``, after the handler that takes its time."""
        if not engine.has_event_handler(self):
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, _engine: Engine) -> None:
        self._written = False

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Run the encoder once, on the first case that has not failed, and write the file."""
        state: Any = engine.state
        if self._written or not state.batch:
            return
        self._written = True
        item = state.batch[0]
        patch = plain_tensor(ResizeWithPadOrCrop(self.patch_size)(item["image"])).float()
        arrays: dict[str, Any] = {"case": np.array(str(item.get("case", ""))), "image": _slice(patch)}
        with eval_mode(self.network), FeatureHooks(self.network, self.taps, stop_after_last=True) as hooks:
            self.network(patch[None].to(state.device))
        for i, features in enumerate(hooks.pop()):
            arrays[f"stage_{i}"] = _slice(detail_map(features[0].float().cpu()))
        path = os.path.join(self.output_dir, "detail_maps.npz")
        write_atomically(path, lambda name: np.savez_compressed(name, **arrays))


def detail_map(features: torch.Tensor, wavelet: str = "db4", levels: int = 3) -> torch.Tensor:
    """Root mean square over channels of the detail projection of (C, X, Y, Z), as a map (X, Y, Z).

    Wavelet and levels are as in the loss, and the levels limited for a short side as there.
    """
    levels = min(levels, max_levels(min(features.shape[1:]), wavelet))
    return DetailProjection(wavelet, levels)(features).square().mean(0).sqrt()


def _slice(volume: torch.Tensor) -> np.ndarray:
    return volume[..., volume.shape[-1] // 2].numpy().astype(np.float32)
