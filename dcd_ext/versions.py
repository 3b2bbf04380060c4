"""Versions and hardware that a result was computed with."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dcd_ext.parallel import cores

_PACKAGES = ("torch", "monai", "pytorch-ignite", "dynamic_network_architectures", "PyWavelets", "nibabel", "numpy")


def environment(device: Any = None) -> dict[str, Any]:
    """Versions, the name of the torch device (default: the CPU), ``cpus`` usable by this process, and ``threads``."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": _device_name(device),
        "cpus": cores(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device_name(device: Any) -> str:
    if device is not None and torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
