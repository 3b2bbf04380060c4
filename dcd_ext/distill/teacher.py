"""A frozen teacher: built, loaded strictly, never trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dcd_ext.distill.hooks import FeatureTaps, StopForward
from dcd_ext.errors import UserError
from dcd_ext.networks import autocast_on_cpu
from dcd_ext.tensors import plain_tensor

__all__ = ["FrozenTeacher", "load_state_dict_strictly", "load_teacher", "read_checkpoint"]

# what DDP, torch.compile and Lightning put in front of every key
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "network.")


def read_checkpoint(path: str, next_step: str) -> dict[str, Any]:
    """Content of a file written by ``torch.save``, read with ``weights_only=True``.

    Args:
        path: the file.
        next_step: what the user does when it cannot be read.

    Raises:
        UserError: if the file is missing or unreadable.
    """
    if not os.path.isfile(path):
        raise UserError("weights not found", path, "a checkpoint", "no such file", next_step)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise UserError(
            "weights cannot be read", path, "tensors only (weights_only=True)", f"{type(e).__name__}", next_step
        ) from e
    return state


def load_state_dict_strictly(network: nn.Module, path: str, next_step: str) -> None:
    """Load ``path`` into ``network``; every key has to fit.

    The file is a state dict, plain or under the key ``model`` or ``network`` (as in ``checkpoint_last.pt``).

    Args:
        network: receives the weights.
        path: file written by ``torch.save``; read with ``weights_only=True``.
        next_step: what the user does when the file is missing or does not fit.

    Raises:
        UserError: if the file is missing or unreadable, or any key or shape differs.
    """
    state = read_checkpoint(path, next_step)
    for key in ("model", "network"):
        if isinstance(state.get(key), dict):
            state = state[key]
    for prefix in _WRAPPER_PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    wrong = sorted(set(expected.items()) ^ set(found.items()))
    if wrong:
        key = wrong[0][0]
        raise UserError(
            f"weights do not fit the network ({len({k for k, _ in wrong})} keys differ)",
            f"{path}, key {key}",
            f"shape {expected.get(key, 'none')}",
            f"shape {found.get(key, 'none')}",
            next_step,
        )
    network.load_state_dict(state, strict=True)


class FrozenTeacher(nn.Module):
    """A network that cannot be trained: evaluation mode, no gradients, and ``train()`` does nothing.

    Args:
        network: the teacher with its weights.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in evaluation mode, whatever a trainer asks for."""
        return self

    def tap(self, paths: Sequence[str], stop_after_last: bool = True) -> FeatureTaps:
        """Taps on the wrapped network; see :class:`dcd_ext.distill.hooks.FeatureTaps`."""
        taps = FeatureTaps(self.network, paths, stop_after_last=stop_after_last)
        taps.enabled = True
        return taps

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Any:
        """Output for ``x`` (B, M, X, Y, Z), or None if a tap ended the forward pass early."""
        try:
            return self.network(plain_tensor(x))
        except StopForward:
            return None


def load_teacher(
    network_def: Callable[[], nn.Module], ckpt_path: str, device: torch.device | str, cpu_autocast: bool = False
) -> FrozenTeacher:
    """Build a teacher and load its weights.

    Args:
        network_def: builds the network (a config entry with ``_mode_: callable``). Its random initial weights are
            drawn from a forked generator: a run with a teacher must start exactly like one without.
        ckpt_path: the teacher's ``model.pt``.
        device: where it runs.
        cpu_autocast: run it in bfloat16 on a CPU; on CUDA the trainer's autocast holds for it, too.

    Raises:
        UserError: if the checkpoint is missing or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        network = network_def()
    load_state_dict_strictly(
        network, ckpt_path, "train the teacher bundle first, or pass --teacher_ckpt <its models/model.pt>"
    )
    return FrozenTeacher(autocast_on_cpu(network, cpu_autocast)).to(device)
