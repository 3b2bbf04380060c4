"""Versions and hardware that a result was computed with."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dcd_ext import __version__
from dcd_ext.parallel import cores

_PACKAGES = ("torch", "monai", "pytorch-ignite", "dynamic_network_architectures", "PyWavelets", "nibabel", "numpy")


def packages() -> dict[str, str]:
    """Versions of Python, this package and those that compute."""
    return {
        "python": platform.python_version(),
        "dcd_ext": __version__,
        **{name: _version(name) for name in _PACKAGES},
    }


def environment(device: Any = None) -> dict[str, Any]:
    """:func:`packages`, the name of the torch device (default: the CPU), ``cpus`` for this process and ``threads``."""
    import torch  # takes seconds

    on_gpu = device is not None and torch.device(device).type == "cuda"
    return {
        **packages(),
        "device": torch.cuda.get_device_name(torch.device(device)) if on_gpu else processor(),
        "cpus": cores(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
