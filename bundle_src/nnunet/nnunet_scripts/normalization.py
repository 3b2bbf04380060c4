"""nnU-Net v2's intensity normalisations, per channel, in float32."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def normalize(image: np.ndarray, inside: np.ndarray | None, schemes: list[Mapping[str, Any]]) -> np.ndarray:
    """Normalise each channel of (C, X, Y, Z).

    Args:
        image: float32.
        inside: the non-zero region with its holes filled; only read by schemes with ``use_mask``.
        schemes: per channel ``scheme`` (nnU-Net's class name), ``use_mask`` and, for CT, ``mean``, ``std``, ``lower``
            and ``upper`` of the training set's foreground.
    """
    return np.stack([_SCHEMES[s["scheme"]](channel, inside, s) for channel, s in zip(image, schemes, strict=True)])


def _z_score(image: np.ndarray, inside: np.ndarray | None, scheme: Mapping[str, Any]) -> np.ndarray:
    if not scheme["use_mask"] or inside is None:
        return (image - image.mean()) / max(image.std(), 1e-8)
    values, result = image[inside], image.copy()
    result[inside] = (values - values.mean()) / max(values.std(), 1e-8)
    return result


def _ct(image: np.ndarray, _inside: np.ndarray | None, scheme: Mapping[str, Any]) -> np.ndarray:
    return (np.clip(image, scheme["lower"], scheme["upper"]) - scheme["mean"]) / max(scheme["std"], 1e-8)


def _to_01(image: np.ndarray, _inside: np.ndarray | None, _scheme: Mapping[str, Any]) -> np.ndarray:
    image = image - image.min()
    return image / max(image.max(), 1e-8)


_SCHEMES = {
    "ZScoreNormalization": _z_score,
    "CTNormalization": _ct,
    "RescaleTo01Normalization": _to_01,
    "RGBTo01Normalization": lambda image, *_: image / 255.0,
    "NoNormalization": lambda image, *_: image,
}
