"""Catch the outputs of named modules of any network, once per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from dcd_ext.errors import UserError
from dcd_ext.tensors import plain_tensor, unwrap

__all__ = ["FeatureTaps", "StopForward"]


class StopForward(Exception):
    """Ends a forward pass after its last tapped module; never leaves :class:`FeatureTaps`' owner."""


class FeatureTaps:
    """Outputs of the modules at dotted ``paths``, caught by forward hooks and popped once per step.

    Args:
        network: the network; wrappers such as ``DistributedDataParallel`` are looked through.
        paths: dotted module paths, e.g. ``encoder.stages.0``.
        stop_after_last: raise :class:`StopForward` once every tap has fired, to skip what lies behind.

    Raises:
        UserError: if a path names no module, or, on :meth:`pop`, if a tap did not fire or fired twice.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.ReLU())
        >>> taps = FeatureTaps(network, ["0"])
        >>> taps.enabled = True
        >>> _ = network(torch.zeros(1, 1, 4, 4, 4))
        >>> [tuple(f.shape) for f in taps.pop()]
        [(1, 2, 4, 4, 4)]
    """

    def __init__(self, network: nn.Module, paths: Sequence[str], stop_after_last: bool = False) -> None:
        self.network = unwrap(network)
        self.paths = list(paths)
        self.stop_after_last = stop_after_last
        self.enabled = False
        self._features: dict[str, torch.Tensor] = {}
        self._fired: dict[str, int] = {}
        modules = dict(self.network.named_modules())
        for path in self.paths:
            if path not in modules:
                raise UserError(
                    "tap not found",
                    f"{type(self.network).__name__}",
                    f"a module path such as {_nearest(path, modules)}",
                    repr(path),
                    "correct 'taps' in the config",
                )
        self._handles: list[RemovableHandle] = [
            modules[path].register_forward_hook(self._hook(path)) for path in self.paths
        ]

    def _hook(self, path: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not self.enabled:
                return
            self._features[path] = plain_tensor(output)
            self._fired[path] = self._fired.get(path, 0) + 1
            if self.stop_after_last and len(self._features) == len(self.paths):
                raise StopForward

        return hook

    def pop(self) -> list[torch.Tensor]:
        """Features in the order of ``paths``; the store is empty afterwards."""
        features, fired = self._features, self._fired
        self._features, self._fired = {}, {}
        for path in self.paths:
            if fired.get(path, 0) != 1:
                raise UserError(
                    "tap did not fire once per step",
                    f"{path} of {type(self.network).__name__}",
                    "1 output",
                    f"{fired.get(path, 0)}",
                    "tap a module that forward() calls once, and do not compile the tapped network",
                )
        return [features[path] for path in self.paths]

    def clear(self) -> None:
        """Forget what was caught, so that no graph outlives its step."""
        self._features, self._fired = {}, {}

    def remove(self) -> None:
        """Take the hooks off the network."""
        self.clear()
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _nearest(path: str, modules: dict[str, nn.Module]) -> str:
    import difflib

    close = difflib.get_close_matches(path, list(modules), n=3)
    return ", ".join(repr(c) for c in close or [name for name in modules if name][:3])
