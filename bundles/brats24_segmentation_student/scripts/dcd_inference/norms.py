"""Instance norms of half-precision features with few channels: cuDNN gives each channel one block of threads."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from dcd_inference.kernels import works

# elements that a program holds at once, and programs of a sample that sum
_TILE, _PROGRAMS = 4096, 256


class FastInstanceNorms(TorchFunctionMode):
    """Within it ``instance_norm`` of half-precision features on a GPU, channels last, is :func:`normalize`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.instance_norm:
            return _instance_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _instance_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """The arguments of ``torch.nn.functional.instance_norm``."""
    plain = use_input_stats and running_mean is None and running_var is None and (weight is None) == (bias is None)
    packed = all(p is None or p.is_contiguous() for p in (weight, bias))
    if plain and packed and is_fast(x) and x[0, 0].numel() > 1:
        return normalize(x, weight, bias, eps)
    return F.instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def is_fast(x: torch.Tensor) -> bool:
    """Whether :func:`normalize`, which has no gradient, takes these features (N, C, D, H, W)."""
    if torch.is_grad_enabled() or x.ndim != 5 or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return False
    return x.dtype.itemsize == 2 and has_fast_norms(x.device)


def has_fast_norms(device: torch.device) -> bool:
    """Whether a device runs them."""
    return works(_try, device, "the network")


def _try(device: torch.device) -> None:
    weight = torch.ones(8, device=device)
    for dtype in (torch.float16, torch.bfloat16):
        normalize(torch.zeros(1, 8, 2, 2, 2, dtype=dtype, device=device), weight, weight, 1e-5)


def normalize(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Zero mean and unit variance in each sample and channel, then ``weight`` and ``bias`` (C); computed in float32.

    The features ``x`` (N, C, D, H, W) lie channels last, and have more than one voxel.
    """
    import triton

    from dcd_inference.norm_kernels import apply, sums

    samples, channels = x.shape[:2]
    voxels = x[0, 0].numel()
    columns = min(triton.next_power_of_2(channels), 64)
    rows = _TILE // columns
    programs = min(triton.cdiv(voxels, rows), _PROGRAMS)
    grid = (programs, samples, triton.cdiv(channels, columns))
    moments = torch.empty(2, samples, programs, channels, device=x.device)
    result = torch.empty_like(x)
    affine = weight is not None
    with torch.cuda.device_of(x):
        sums[grid](x, moments, voxels, channels, ROWS=rows, COLUMNS=columns)
        apply[grid](
            x, moments, weight if affine else x, bias if affine else x, result, eps, voxels, channels,
            AFFINE=affine, ROWS=rows, COLUMNS=columns,
        )  # fmt: skip
    return result
