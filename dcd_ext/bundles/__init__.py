"""Bundles: building, reading, checking, packing, exporting; and what their configs call first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcd_ext.bundles.config import prepare_run

__all__ = ["prepare_run"]


def __getattr__(name: str) -> Any:
    """Import what needs MONAI on first use: the commands that read bundles start without it."""
    if name == "prepare_run":
        from dcd_ext.bundles.config import prepare_run

        return prepare_run
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
