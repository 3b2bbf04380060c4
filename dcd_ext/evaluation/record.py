"""What was evaluated: data, weights and cost, so that two results can be told to be comparable."""

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
from dcd_ext.weights import origin_of


def dataset_record(dataset_dir: str | None) -> dict[str, Any]:
    """``task``, ``modalities`` (in channel order), ``dataset_dir``, ``datalist_sha256``; nothing without data list."""
    path = Path(dataset_dir or "", DATALIST_FILE)
    if not dataset_dir or not path.is_file():
        return {}
    content = read_datalist(path)
    return {
        "task": content.get("task", content.get("name")),
        "modalities": list(channel_names(content.get("modality") or {})),
        "dataset_dir": os.path.abspath(dataset_dir),
        "datalist_sha256": sha256(path),
    }


def network_record(network: nn.Module, weights: str | None, patch: Sequence[int] | None) -> dict[str, Any]:
    """``parameters`` and, where known, ``patch`` (M, X, Y, Z), its ``flops_per_patch``, and two of the weights.

    They are ``weights_sha256`` and ``training``: fold, data list, config, versions and epoch of the run they come from.
    """
    record: dict[str, Any] = {"parameters": count_parameters(unwrap(network))}
    if patch:
        record.update(patch=list(patch), flops_per_patch=count_flops(network, patch))
    if weights and os.path.isfile(weights):
        record["weights_sha256"] = sha256(weights)
        origin = origin_of(weights)
        if isinstance(origin, dict) and "datalist_sha256" in origin:
            record["training"] = {key: value for key, value in origin.items() if key not in ("config", "scores")}
    return record


def count_flops(network: nn.Module, patch: Sequence[int]) -> int | None:
    """Floating-point operations of one forward pass, a multiplication and an addition counting as two.

    The input has the shape ``patch`` (M, X, Y, Z). Convolutions and matrix products are counted, as usual; norms,
    activations and sums are not. Nothing is computed: a copy of the network runs on torch's meta device; None where
    that cannot run it.
    """
    try:
        shadow = copy.deepcopy(unwrap(network)).to("meta").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shadow(torch.zeros(1, *patch, device="meta"))
    except (RuntimeError, NotImplementedError):
        return None
    return int(counter.get_total_flops())
