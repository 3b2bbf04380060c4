"""A frozen teacher: built, loaded strictly, never trained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dcd_ext.networks import autocast_on_cpu, seeded
from dcd_ext.tensors import plain_tensor
from dcd_ext.weights import load_weights


class FrozenTeacher(nn.Module):
    """A network that cannot be trained: evaluation mode, no gradients, and ``train()`` does nothing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in evaluation mode, whatever a trainer asks for."""
        return self

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Any:
        """The network's output for ``x`` (B, M, X, Y, Z)."""
        return self.network(plain_tensor(x))


def load_teacher(
    network_def: Callable[[], nn.Module], ckpt_path: str, device: torch.device | str, cpu_autocast: bool = False
) -> FrozenTeacher:
    """Build a teacher and load its weights; a checkpoint that is missing or does not fit is refused.

    Args:
        network_def: builds the network (a config entry with ``_mode_: callable``). Its random initial weights are
            drawn from a forked generator: a run with a teacher must start exactly like one without.
        ckpt_path: the teacher's ``model.pt``.
        cpu_autocast: run it in bfloat16 on a CPU; on CUDA the trainer's autocast also applies to it.
    """
    with seeded():
        network = network_def()
    load_weights(network, ckpt_path, "train the teacher bundle first, or pass --teacher_ckpt <its models/model.pt>")
    if cpu_autocast:
        autocast_on_cpu(network)
    return FrozenTeacher(network).to(device)
