"""What width costs: parameters, operations and CPU time of a task's network for several reduction factors."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from dcd_ext.bundles.tools import open_bundle
from dcd_ext.errors import UserError
from dcd_ext.evaluation.record import count_flops
from dcd_ext.networks import count_parameters, memory_format
from dcd_ext.versions import environment

__all__ = ["held_out_case", "mean_dice", "measure_family", "smallest_patch", "time_in_turns"]

# passes before the clock starts: patches, then volumes, whose networks are warm by then
WARM_UP = {"patch": 2, "volume": 1}
_SECONDS = ("seconds_per_patch", "seconds_per_volume")


def measure_family(
    bundle_root: str,
    factors: Sequence[int],
    patch: Sequence[int] | None = None,
    volume: torch.Tensor | Sequence[int] | None = None,
    repeats: int = 10,
    volume_repeats: int = 3,
) -> dict[str, Any]:
    """Cost of the bundle's network at each ``reduction_factor``, relative to the first one.

    Networks, memory format and sliding window are those of the bundle's ``train.json`` on the CPU, in evaluation and
    float32. All networks take turns, so that a busy machine disturbs them alike.

    Args:
        bundle_root: folder of a bundle.
        factors: reduction factors; the first is what the others are compared with.
        patch: sides of the patch in voxels; None: the bundle's.
        volume: image (1, M, X, Y, Z) for the sliding window, or three sides in voxels of a volume of noise; None:
            one and a half patches along each axis. Time does not depend on the values.
        repeats: timed passes per patch; medians are reported.
        volume_repeats: timed passes per volume; 0: none.

    Raises:
        UserError: for a factor below 1, no repeats, or a patch that the network's strides do not divide.
    """
    if not factors or min(factors) < 1:
        raise UserError("unusable reduction factor", "--factors", "whole numbers from 1", list(factors), "correct them")
    if repeats < 1:
        raise UserError("nothing to time", "--repeats", "a whole number from 1", repeats, "correct it")
    parsers = {r: _open(bundle_root, r, patch) for r in factors}
    first = parsers[factors[0]]
    patch = list(first.get_parsed_content("patch_size"))
    _check_patch(patch, first.get_parsed_content("strides"))
    networks = {r: _network(parser) for r, parser in parsers.items()}
    image = _noise([1, first.get_parsed_content("in_channels"), *patch])
    seconds = time_in_turns({r: _call(network, image) for r, network in networks.items()}, repeats, WARM_UP["patch"])
    if not isinstance(volume, torch.Tensor):
        volume = _noise([*image.shape[:2], *(volume or (side + side // 2 for side in patch))])
    inferer = first.get_parsed_content("validate::inferer")
    calls = {r: _call(inferer, volume, network) for r, network in networks.items()}
    whole = time_in_turns(calls, volume_repeats, WARM_UP["volume"])
    members = [
        {
            "reduction_factor": r,
            "features": list(parsers[r].get_parsed_content("network_def::features_per_stage")),
            "parameters": count_parameters(network),
            "flops_per_patch": count_flops(network, image.shape[1:]),
            "seconds_per_patch": seconds[r],
            "seconds_per_volume": whole[r],
        }
        for r, network in networks.items()
    ]
    return {
        "format": "dcd-family-1",
        "patch": patch,
        "volume": list(volume.shape[2:]),
        "repeats": {"patch": repeats, "volume": volume_repeats},
        "warm_up": WARM_UP,
        "memory_format": str(memory_format("cpu")),
        "environment": environment(),
        "members": [{**m, "relative": _relative(m, members[0])} for m in members],
    }


def _open(bundle_root: str, factor: int, patch: Sequence[int] | None, **override: Any) -> ConfigParser:
    override |= {"reduction_factor": factor, "network_def::deep_supervision": False, "device": "cpu", "amp": False}
    if patch is not None:
        override["patch_size"] = list(patch)
    return open_bundle(bundle_root, [os.path.join(bundle_root, "configs", "train.json")], **override)


def _network(parser: ConfigParser) -> nn.Module:
    network: Any = parser.get_parsed_content("network_def", lazy=False)
    return network.eval().to(memory_format=memory_format("cpu"))


def _check_patch(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> None:
    for axis, factor in enumerate(_total_strides(strides)):
        if patch[axis] % factor:
            expected = f"a multiple of {factor} along axis {axis}"
            raise UserError("patch does not fit the network", "--patch", expected, list(patch), "correct it")


def _total_strides(strides: Sequence[Sequence[int]]) -> list[int]:
    totals = [1, 1, 1]
    for stride in strides:
        totals = [total * step for total, step in zip(totals, stride, strict=True)]
    return totals


def smallest_patch(bundle_root: str) -> list[int]:
    """The smallest patch of two voxels a side at the deepest stage, to try a command out."""
    return [2 * total for total in _total_strides(_open(bundle_root, 1, None).get_parsed_content("strides"))]


def _noise(shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _call(function: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
    def call() -> None:
        with torch.inference_mode():
            function(*arguments)

    return call


def time_in_turns(
    calls: Mapping[int, Callable[[], None]], repeats: int, warm_up: int
) -> dict[int, dict[str, float] | None]:
    """Median, minimum and maximum wall seconds of each call, after ``warm_up`` untimed ones; None for no repeats."""
    times: dict[int, list[float]] = {key: [] for key in calls}
    for repeat in range(repeats + warm_up if repeats else 0):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat >= warm_up:
                times[key].append(time.perf_counter() - start)
    return {
        key: {"median": statistics.median(t), "min": min(t), "max": max(t)} if t else None for key, t in times.items()
    }


def _relative(member: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, float | None]:
    """Shares saved against the first member, in [0, 1]."""

    def saved(key: str) -> float | None:
        values = [m[key]["median"] if isinstance(m[key], dict) else m[key] for m in (member, first)]
        return None if None in values else 1 - values[0] / values[1]

    return {f"{key}_saved": saved(key) for key in ("parameters", "flops_per_patch", *_SECONDS)}


def held_out_case(bundle_root: str, dataset_dir: str, fold: int = 0) -> torch.Tensor:
    """The first held-out case of a prepared data set behind the bundle's preprocessing: (1, M, X, Y, Z)."""
    parser = _open(bundle_root, 1, None, dataset_dir=dataset_dir, fold=fold, cache_rate=0.0)
    dataset: Any = parser.get_parsed_content("validate::dataset")
    return dataset[0]["image"].as_tensor()[None]


def mean_dice(bundle_root: str, factor: int, checkpoint: str, dataset_dir: str, fold: int = 0) -> float | None:
    """Mean foreground Dice over the held-out fold of the weights in ``checkpoint``, by the bundle's evaluation."""
    files = [os.path.join(bundle_root, "configs", f"{name}.json") for name in ("train", "evaluate")]
    with tempfile.TemporaryDirectory() as folder:
        override = {"reduction_factor": factor, "ckpt_path": checkpoint, "dataset_dir": dataset_dir, "fold": fold}
        parser = open_bundle(bundle_root, files, output_dir=folder, save_predictions=False, **override)
        parser.get_parsed_content("validate::evaluator").run()
        with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as file:
            dice: float | None = json.load(file)["summary"]["mean"]["dice"]["mean"]
    return dice
