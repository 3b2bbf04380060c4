"""Data preparation: phantoms, case discovery, folds, data lists and checks. Imports nothing heavy by itself."""

from dcd_ext.data.verdict import require_checked

__all__ = ["require_checked"]
