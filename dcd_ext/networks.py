"""What a network needs before it is trained: initial weights and deep supervision in training only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dcd_ext.errors import UserError


def memory_format(device: torch.device | str) -> torch.memory_format:
    """The layout in which 3D convolutions are fastest: channels last on a CPU, contiguous elsewhere."""
    return torch.channels_last_3d if torch.device(device).type == "cpu" else torch.contiguous_format


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw initial weights on the CPU from ``seed``, and leave the global random state unchanged.

    Runs that differ only in their teacher or in unused projections then start identically.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the accelerators, whose state is not forked
        torch.default_generator.manual_seed(seed)
        yield


def prepare_for_training(
    network: nn.Module, seed: int = 0, device: torch.device | str = "cpu", amp: bool = False
) -> nn.Module:
    """Initialise a network as nnU-Net does, let its deep supervision follow ``network.training``, and move it.

    nnU-Net's networks return a list of outputs whenever deep supervision is on, also in evaluation. A forward
    pre-hook switches the decoder instead, so that training sees the list (finest output first), while evaluation,
    its copies (EMA) and a wrapping ``DistributedDataParallel`` see one tensor and the state dict is unchanged. The
    same network is returned.

    Args:
        network: a network; ``network.initialize`` (a function of one module) is applied if it has one, and its
            ``decoder.deep_supervision`` flag, if it is set, is switched.
        seed: the initial weights depend on this number only, not on what was built before.
        device: where it is trained, in the :func:`memory_format` of that device.
        amp: mixed precision, for a CPU; on CUDA the trainer's own autocast does it.
    """
    device = torch.device(device)
    initialize = getattr(network, "initialize", None)
    if initialize is not None:
        with seeded(seed):
            network.apply(initialize)
    if getattr(getattr(network, "decoder", None), "deep_supervision", False):
        network.register_forward_pre_hook(_follow_training_mode)
    if amp and device.type == "cpu":
        autocast_on_cpu(network)
    move: Any = network.to  # its type stub lacks memory_format
    move(device, memory_format=memory_format(device))
    return network


def _follow_training_mode(network: Any, _inputs: Any) -> None:
    network.decoder.deep_supervision = network.training


def autocast_on_cpu(network: nn.Module) -> nn.Module:
    """Run a network's forward pass in bfloat16 autocast on the CPU, and return its outputs in float32.

    ``SupervisedTrainer(amp=True)`` knows CUDA's autocast only. Forward hooks follow the network into its copies (EMA)
    and wrappers (DDP), and leave the state dict as it is; the loss stays outside, in float32.

    Convolutions of features that are two voxels deep stay in float32: oneDNN (that of torch 2.13)
    computes the gradients of their weights in bfloat16 from memory that nobody has written.
    The same network is returned.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_pre_hook(_pause_autocast)
            module.register_forward_hook(_resume_autocast, always_call=True)
    network.register_forward_pre_hook(_enter_autocast)
    network.register_forward_hook(_leave_autocast, always_call=True)
    return network


def _pause_autocast(convolution: Any, inputs: Any) -> Any:
    convolution.pauses_autocast = torch.is_autocast_enabled("cpu") and inputs[0].shape[2] == 2
    if not convolution.pauses_autocast:
        return None
    torch.set_autocast_enabled("cpu", False)
    return (inputs[0].float(), *inputs[1:])


def _resume_autocast(convolution: Any, _inputs: Any, _output: Any) -> None:
    if convolution.pauses_autocast:
        torch.set_autocast_enabled("cpu", True)


def _enter_autocast(_network: nn.Module, _inputs: Any) -> None:
    torch.set_autocast_enabled("cpu", True)


def _leave_autocast(_network: nn.Module, _inputs: Any, output: Any) -> Any:
    torch.set_autocast_enabled("cpu", False)
    torch.clear_autocast_cache()
    if isinstance(output, (list, tuple)):
        return [o.float() for o in output]
    return None if output is None else output.float()  # None: the pass was ended early


def deep_supervision_weights(heads: int) -> list[float]:
    """Weights of the deep supervision outputs, finest first: 1, 1/2, 1/4, ..., last 0, summing to 1 (nnU-Net)."""
    if heads < 1:
        raise UserError("no output to supervise", "deep_supervision_weights", "heads >= 1", heads, "check 'strides'")
    weights = [0.5**i for i in range(heads)]
    if heads > 1:
        weights[-1] = 0.0
    return [w / sum(weights) for w in weights]


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, each counted once: ``ResidualEncoderUNet`` holds its encoder twice in the state dict."""
    return sum(p.numel() for p in network.parameters())
