"""The mean squared detail of a projected difference of features: fast engine and reference implementation."""

from dcd_ext.wavelets.energy.engine import LastShare, detail_energy

__all__ = ["LastShare", "detail_energy"]
