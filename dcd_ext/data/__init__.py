"""Data preparation: phantoms, case discovery, folds, data lists and checks. Imports nothing heavy by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcd_ext.data.cases import load_cases
from dcd_ext.data.check_report import require_checked

if TYPE_CHECKING:
    from dcd_ext.data.cache import choose_cache_rate

__all__ = ["choose_cache_rate", "load_cases", "require_checked"]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use: preparing and checking data start without it."""
    if name == "choose_cache_rate":
        from dcd_ext.data.cache import choose_cache_rate

        return choose_cache_rate
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
