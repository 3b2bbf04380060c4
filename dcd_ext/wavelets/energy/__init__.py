"""The mean squared detail of a projected difference of features: fast engine and reference implementation."""

from dcd_ext.wavelets.energy.engine import detail_energy

__all__ = ["detail_energy"]
