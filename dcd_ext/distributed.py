"""Join and leave :mod:`torch.distributed` so that none of its threads is left when Python ends."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

# imported late, by DistributedDataParallel and by MONAI, their default arguments hold the process group for good
import torch.distributed.nn
import torch.distributed.optim
from torch import nn


def is_main_process() -> bool:
    """Whether this is the process that writes files: the only one, or rank 0 of several."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def on_main_process(action: Callable[[], Any]) -> None:
    """Let the main process do something; an error of it is raised in all, so that none waits for one that has ended."""
    error: list[Any] = [None]
    if is_main_process():
        try:
            action()
        except Exception as caught:
            error[0] = caught
    if dist.is_initialized():
        dist.broadcast_object_list(error, src=0)
    if error[0] is not None:
        raise error[0]


def gather_objects(item: Any) -> list[Any]:
    """The items of all processes, in the order of their ranks."""
    if not dist.is_initialized():
        return [item]
    items = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items


def any_process(flag: bool, device: Any = "cpu") -> bool:
    """Whether the flag is set in one process at least; every process has to call it, and gets the same answer.

    The processes communicate on ``device``: NCCL knows no CPU.
    """
    if not dist.is_initialized():
        return flag
    result = torch.tensor(float(flag), device=device)
    dist.all_reduce(result, dist.ReduceOp.MAX)
    return bool(result)


def init_process_group(device: torch.device | str) -> None:
    """Join the processes that ``torchrun`` started, unless that is done: NCCL for a CUDA ``device``, else Gloo."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def destroy_process_group(network: nn.Module) -> None:
    """Leave the processes, and wait until the threads that talked to them have ended.

    :func:`torch.distributed.destroy_process_group` waits for them only if nothing else holds the group. A Gloo thread
    that frees the tensors of the last collective while Python is ending aborts the process («terminate called without
    an active exception»), and ``torchrun`` then stops the others in the middle of their work
    (https://github.com/pytorch/pytorch/issues/190489). A ``DistributedDataParallel``, which holds the group, too, can
    no longer be trained.
    """
    if isinstance(network, nn.parallel.DistributedDataParallel):
        del network.reducer, network.logger, network.process_group
    if dist.is_initialized():
        dist.destroy_process_group()
