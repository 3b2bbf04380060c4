"""From label maps to MR-like intensities: contrast per modality, partial volume, drift, Rician noise, scanner scale."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dcd_ext.data.phantom_anatomy import smooth_field


@dataclass(frozen=True)
class Contrast:
    """Relative brightness of what a phantom is made of; white matter in T1 is about 0.85."""

    tissue: tuple[float, float, float, float]  # outside, CSF, grey matter, white matter
    classes: tuple[float, ...]  # of each label value from 1 on
    level: float = 1000.0  # typical stored value at brightness 1; scans vary by a factor of about two around it


# Order of classes: NETC, SNFH, ET, RC. ET shows in t1c, oedema in t2f and t2w, a resection cavity looks like CSF.
BRATS_CONTRASTS: dict[str, Contrast] = {
    "t1n": Contrast((0, 0.25, 0.65, 0.85), (0.48, 0.58, 0.66, 0.22), 1000),
    "t1c": Contrast((0, 0.25, 0.62, 0.80), (0.42, 0.56, 1.50, 0.24), 2600),
    "t2w": Contrast((0, 1.40, 0.72, 0.50), (1.00, 1.08, 0.88, 1.50), 700),
    "t2f": Contrast((0, 0.15, 0.62, 0.52), (0.80, 1.22, 0.98, 0.17), 1100),
}


def render(
    rng: np.random.Generator, brain: np.ndarray, label: np.ndarray, contrast: Contrast, noise: float = 0.05
) -> np.ndarray:
    """Turn a tissue map (0 outside the head) and a label map, which replaces tissue, into one noisy float32 image.

    It is 0 outside the head and positive inside. ``noise`` is the standard deviation of each of the two Gaussian
    components, relative to brightness 1.
    """
    lookup = np.array(contrast.tissue + contrast.classes, np.float32)
    signal = lookup[np.where(label > 0, label + len(contrast.tissue) - 1, brain)]
    signal = ndimage.gaussian_filter(signal, 0.4)  # partial volume: borders are never one voxel sharp
    signal *= 1 + 0.04 * smooth_field(rng, brain.shape, 12)
    signal *= np.exp(0.12 * smooth_field(rng, brain.shape, 3))  # coil drift
    real = signal + noise * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(signal.shape, dtype=np.float32)
    scale = contrast.level * float(np.exp(rng.uniform(-0.6, 0.6)))
    image = np.hypot(real, imaginary) * scale
    # never 0 inside (nor after rounding), so that "non-zero" is the head, as in the published skull-stripped images
    return np.where(brain > 0, np.maximum(image, 0.0015 * contrast.level), 0).astype(np.float32)
