"""Detail Consistent Distillation for MONAI: wavelet detail losses, distillation, data preparation, evaluation."""

import importlib
import pkgutil
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import submodules on first use, so that a config's single ``$import dcd_ext`` reaches them all."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
