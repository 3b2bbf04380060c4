"""Helpers for tensors and wrapped networks."""

from typing import Any

from torch import nn


def unwrap(network: Any) -> Any:
    """The network inside ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``; all else as it is."""
    while True:
        inner = getattr(network, "module", None) or getattr(network, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def plain_tensor(x: Any) -> Any:
    """Strip MONAI's ``MetaTensor``: its bookkeeping would follow every operation of the loss."""
    return x.as_tensor() if hasattr(x, "as_tensor") else x
