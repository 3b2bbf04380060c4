"""Distillation losses over features and outputs of 3D networks."""

from dcd_ext.losses.combined import CombinedLoss
from dcd_ext.losses.cwd import CWDLoss
from dcd_ext.losses.dcd import DCDLoss
from dcd_ext.losses.feature import FitNetLoss
from dcd_ext.losses.freekd import FreeKDLoss
from dcd_ext.losses.ifvd import IFVDLoss
from dcd_ext.losses.logits import LogitsLoss
from dcd_ext.losses.recokd import ReCoKDLoss

__all__ = [
    "CWDLoss",
    "CombinedLoss",
    "DCDLoss",
    "FitNetLoss",
    "FreeKDLoss",
    "IFVDLoss",
    "LogitsLoss",
    "ReCoKDLoss",
]
