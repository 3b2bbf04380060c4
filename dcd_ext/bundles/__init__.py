"""Build, read, check, pack and export bundles."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Configs call ``dcd_ext.bundles.config`` and import ``dcd_ext`` only."""
    if name == "config":
        return importlib.import_module(f"{__name__}.config")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
