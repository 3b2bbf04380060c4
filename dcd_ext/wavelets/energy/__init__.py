"""The mean squared detail of a projected difference of features: the fast engine and its short reference form."""

from dcd_ext.wavelets.energy.engine import detail_energy

__all__ = ["detail_energy"]
