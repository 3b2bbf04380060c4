"""Separable 3D wavelet projections as a few small matrix products per axis."""

from dcd_ext.wavelets.projection import DetailProjection

__all__ = ["DetailProjection"]
