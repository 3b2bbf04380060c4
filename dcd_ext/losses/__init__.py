"""Distillation losses over feature volumes."""

from __future__ import annotations

from dcd_ext.losses.dcd import DCDLoss

__all__ = ["DCDLoss"]
