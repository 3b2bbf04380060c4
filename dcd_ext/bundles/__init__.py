"""Bundles: building, reading, checking, packing, exporting; and what their configs call first."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import what needs MONAI on first use: the commands that read bundles start without it."""
    if name in ("prepare_run", "require_train_config"):
        from dcd_ext.bundles import config

        return getattr(config, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
