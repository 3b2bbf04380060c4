"""Collect or replace the outputs of named modules of any network, by forward hooks."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from dcd_ext.errors import UserError
from dcd_ext.tensors import plain_tensor, unwrap


class _StopForward(Exception):
    """Ends a forward pass after its last hooked module; :class:`FeatureHooks` catches it."""


class FeatureHooks:
    """Forward hooks on the modules at dotted ``paths``, as a context manager around one forward pass.

    Args:
        network: the network; wrappers such as ``DistributedDataParallel`` are looked through.
        paths: dotted module paths, e.g. ``encoder.stages.0``.
        stop_after_last: end the forward pass, and with it the ``with`` block, once every hook has fired.
        replace: called with the index of the path and the module's output; returns the value that replaces it.
        graded: collect from passes with gradients only, not from those that simulate clicks (DeepEdit) before the step.

    Raises:
        UserError: if a path names no module, or, on :meth:`pop`, if a hook did not fire once or found no tensor.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.ReLU())
        >>> with FeatureHooks(network, ["0"], stop_after_last=True) as hooks:
        ...     _ = network(torch.zeros(1, 1, 4, 4, 4))
        >>> [tuple(feature.shape) for feature in hooks.pop()]
        [(1, 2, 4, 4, 4)]
    """

    def __init__(
        self,
        network: nn.Module,
        paths: Sequence[str],
        stop_after_last: bool = False,
        replace: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
        graded: bool = False,
    ) -> None:
        self.paths, self.stop_after_last, self.replace = list(paths), stop_after_last, replace
        self.graded = graded
        network = unwrap(network)
        self._name = type(network).__name__
        modules = dict(network.named_modules())
        for path in self.paths:
            if path not in modules:
                near = difflib.get_close_matches(path, modules, n=3) or [name for name in modules if name][:3]
                expected = f"a module path such as {', '.join(map(repr, near))}"
                raise UserError("no such module", self._name, expected, repr(path), "correct 'taps' in the config")
        self._modules = [modules[path] for path in self.paths]
        self._features: list[list[torch.Tensor]] = [[] for _ in self.paths]
        self._handles: list[RemovableHandle] = []

    def register(self) -> "FeatureHooks":
        """Forget what was collected before and put the hooks on the network."""
        self.remove()
        self._features = [[] for _ in self.paths]
        self._handles = [m.register_forward_hook(self._hook(i)) for i, m in enumerate(self._modules)]
        return self

    def remove(self) -> None:
        """Take the hooks off the network; what they collected stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def pop(self) -> list[torch.Tensor]:
        """The collected features in the order of ``paths``; none is kept. Raises as the class does."""
        collected, self._features = self._features, [[] for _ in self.paths]
        for path, features in zip(self.paths, collected, strict=True):
            where = f"{path} of {self._name}"
            if len(features) != 1:
                step = "name a module in 'taps' that forward() calls once, and do not compile the network"
                raise UserError("hook did not fire once per step", where, "1 output", len(features), step)
            if not isinstance(features[0], torch.Tensor):
                found, step = type(features[0]).__name__, "name a module in 'taps' that returns one"
                raise UserError("no tensor to compare", where, "a tensor", found, step)
        return [features[0] for features in collected]

    def _hook(self, i: int) -> Callable[..., torch.Tensor | None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            if self.graded and not torch.is_grad_enabled():
                return None
            self._features[i].append(plain_tensor(output))
            if self.stop_after_last and all(self._features):
                raise _StopForward
            return None if self.replace is None else self.replace(i, output)

        return hook

    def __enter__(self) -> "FeatureHooks":
        return self.register()

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> bool:
        self.remove()
        return kind is _StopForward
