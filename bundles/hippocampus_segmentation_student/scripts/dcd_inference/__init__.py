"""What a bundle carries beside MONAI: which images, their names, DICOM folders, and what to do with a case that fails.

``dcd build`` copies this subpackage into every bundle (``scripts/dcd_inference``), so that inference runs without this
package: it imports MONAI, torch and the shared modules ``errors``, ``io``, ``kernels`` and ``recording`` only;
``inputs``, ``names`` and ``dicom`` need neither MONAI nor torch.
"""
