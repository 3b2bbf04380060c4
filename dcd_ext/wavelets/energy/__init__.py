"""The mean squared detail of a projected difference of features: fast engine and reference implementation."""

from dcd_ext.wavelets.energy.engine import SmallShare, detail_energy

__all__ = ["SmallShare", "detail_energy"]
