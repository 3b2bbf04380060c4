"""The most memory that one step of a benchmark needs beyond what is there before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["Step", "peak_extra"]

Step = Callable[[], float]


def peak_extra(step: Step, device: torch.device) -> float:
    """MiB that one step needs beyond what is there before it (features, parameters; not their gradients)."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    return _peak_extra_of_process(step)


def _peak_extra_of_process(step: Step) -> float:
    frees = step.__closure__ or ()
    for cell in frees:
        # Gradients of the warm-up belong to what the step has to allocate.
        contents = cell.cell_contents
        tensors = contents if isinstance(contents, list) else getattr(contents, "parameters", list)()
        for tensor in tensors:
            tensor.grad = None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Linux resets the peak (VmHWM) to the present size (VmRSS).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
