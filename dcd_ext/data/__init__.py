"""Data preparation: phantoms, case discovery, folds, data lists and checks. Imports nothing heavy by itself."""

from dcd_ext.data.cache import choose_cache_rate
from dcd_ext.data.cases import load_cases
from dcd_ext.data.check_report import require_checked

__all__ = ["choose_cache_rate", "load_cases", "require_checked"]
