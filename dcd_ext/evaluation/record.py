"""What was evaluated: data, weights and cost, so that two results can be told to be comparable."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dcd_ext.data.cases import DATALIST_FILE, read_datalist
from dcd_ext.data.tasks import channel_names
from dcd_ext.io import sha256
from dcd_ext.networks import count_parameters
from dcd_ext.tensors import unwrap


def dataset_record(dataset_dir: str | None) -> dict[str, Any]:
    """Task, modalities and folder of a data set.

    Args:
        dataset_dir: folder with ``datalist.json``; None or no such file leaves task and modalities out.

    Returns:
        ``task``, ``modalities`` (in channel order) and ``dataset_dir``, where known.
    """
    path = Path(dataset_dir or "", DATALIST_FILE)
    if not dataset_dir or not path.is_file():
        return {}
    content = read_datalist(path)
    return {
        "task": content.get("task", content.get("name")),
        "modalities": list(channel_names(content.get("modality") or {})),
        "dataset_dir": os.path.abspath(dataset_dir),
    }


def network_record(network: nn.Module, weights: str | None, patch: Sequence[int] | None) -> dict[str, Any]:
    """Size, cost and identity of a network.

    Args:
        network: the evaluated network, possibly wrapped.
        weights: the file its weights came from.
        patch: shape (M, X, Y, Z) of one input.

    Returns:
        ``parameters`` and, where known, ``patch``, ``flops_per_patch`` and the ``weights_sha256``.
    """
    record: dict[str, Any] = {"parameters": count_parameters(unwrap(network))}
    if patch:
        record.update(patch=list(patch), flops_per_patch=count_flops(network, patch))
    if weights and os.path.isfile(weights):
        record["weights_sha256"] = sha256(weights)
    return record


def count_flops(network: nn.Module, patch: Sequence[int]) -> int | None:
    """Floating-point operations of one forward pass, a multiplication and an addition counting as two.

    Convolutions and matrix products are counted, as usual; norms, activations and sums are not. Nothing is computed:
    a copy of the network runs on torch's meta device.

    Args:
        network: any network; its weights are not touched.
        patch: shape (M, X, Y, Z) of the input.

    Returns:
        The number, or None for a network that the meta device cannot run.
    """
    try:
        shadow = copy.deepcopy(unwrap(network)).to("meta").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shadow(torch.zeros(1, *patch, device="meta"))
    except (RuntimeError, NotImplementedError):
        return None
    return int(counter.get_total_flops())
