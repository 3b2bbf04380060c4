"""Preprocessing, windows and label maps equal to nnU-Net v2's, for bundles of imported nnU-Nets.

Plain NumPy, SciPy, torch and MONAI. The package is not called ``scripts``, as in other bundles: started in a folder
that has a package of that name, Python would import that one.
"""

from nnunet_scripts.ensemble import Ensemble
from nnunet_scripts.inferer import WindowInferer
from nnunet_scripts.labels import LabelLoss, LabelMapd
from nnunet_scripts.transforms import NetworkGridd

__all__ = ["Ensemble", "LabelLoss", "LabelMapd", "NetworkGridd", "WindowInferer"]
