"""Detail Consistent Distillation for MONAI: wavelet detail losses, distillation, data preparation, evaluation."""

import importlib
import pkgutil
import sys
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import submodules on first use, so that a config's single ``$import dcd_ext`` reaches them all."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _stand_in_for_bundles_copy() -> None:
    """Let ``dcd_inference``, which bundles carry for inference without this package, be this package's own source.

    Configs name its readers; training so uses the same ones, whether or not it runs inside the bundle's folder.
    """
    alias = ModuleType("dcd_inference", "See dcd_ext.inference.")
    alias.__path__ = [f"{folder}{part}" for folder in __path__ for part in ("/inference", "")]
    # one class of errors, whichever name it is reached by
    alias.errors = importlib.import_module("dcd_ext.errors")  # type: ignore[attr-defined]
    if sys.modules.setdefault(alias.__name__, alias) is alias:
        sys.modules[f"{alias.__name__}.errors"] = alias.errors


_stand_in_for_bundles_copy()
