"""The discrete wavelet transform of one axis, written as small matrices.

A 3D subband is the tensor product of three one-axis filters, so that everything the losses need follows from an
``m×n`` analysis matrix (signal of length n to m coefficients) and an ``n×m`` synthesis matrix per axis length, level
and letter (``a`` approximation, ``d`` detail), border handling and odd lengths included.
"""

from functools import cache

import numpy as np
import pywt
import torch

from dcd_ext.errors import UserError

MODES = ("zero", "symmetric", "reflect", "periodic", "constant")


def check_wavelet(wavelet: str, levels: int, mode: str) -> None:
    """Raise :class:`UserError` unless PyWavelets knows the wavelet, we know the mode and ``levels`` is at least 1."""
    if wavelet not in pywt.wavelist(kind="discrete"):
        expected = "a discrete wavelet of PyWavelets such as 'haar' or 'db4'"
        raise UserError("unknown wavelet", "wavelet", expected, repr(wavelet), "correct the spelling")
    if mode not in MODES:
        expected = f"one of {', '.join(MODES)}"
        raise UserError("unknown border mode", "mode", expected, repr(mode), "choose one; 'zero' is usual")
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
        raise UserError("option out of range", "levels", "a whole number from 1", repr(levels), "3 is usual")


def max_levels(side: int, wavelet: str) -> int:
    """How many levels PyWavelets' rule allows on an axis of ``side`` voxels, but at least one."""
    return max(1, pywt.dwt_max_level(side, pywt.Wavelet(wavelet).dec_len))


@cache
def analysis_matrix(n: int, wavelet: str, mode: str, level: int, letter: str) -> np.ndarray:
    """Matrix (m, n), float64, of the ``letter`` coefficients of ``level`` of a signal of ``n`` samples.

    Built column by column from ``pywt.dwt`` of unit impulses, which makes borders PyWavelets' own.
    """
    finer = np.eye(n) if level == 1 else analysis_matrix(n, wavelet, mode, level - 1, "a")
    if mode == "reflect" and len(finer) < 2:
        raise ValueError(f"mode 'reflect' needs 2 voxels or more on each axis at level {level}; use mode 'symmetric'")
    low, high = pywt.dwt(np.eye(finer.shape[0]), wavelet, mode=mode, axis=0)
    matrix = (low if letter == "a" else high) @ finer
    matrix.setflags(write=False)
    return matrix


@cache
def synthesis_matrix(n: int, wavelet: str, mode: str, level: int, letter: str) -> np.ndarray:
    """Matrix (n, m), float64: what the ``letter`` coefficients of ``level`` alone contribute to the ``n`` samples.

    Each level is cropped to the grid of the next finer one, as multilevel reconstruction does.
    """
    if level == 1:
        coarser, side = np.eye(n), n
    else:
        coarser = synthesis_matrix(n, wavelet, mode, level - 1, "a")
        side = coarser.shape[1]
    eye = np.eye(pywt.dwt_coeff_len(side, pywt.Wavelet(wavelet).dec_len, mode))
    # idwt of the letter alone: None stands for the other band being zero.
    bands = (eye, None) if letter == "a" else (None, eye)
    matrix = coarser @ pywt.idwt(*bands, wavelet, mode=mode, axis=0)[:side]
    matrix.setflags(write=False)
    return matrix


@cache
def axis_map(
    n: int, wavelet: str, mode: str, level: int, letter: str, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair (analysis (m, n), synthesis (n, m)) as tensors, cast once per device and dtype."""
    # autograd cannot use a tensor that was made in inference mode
    with torch.inference_mode(False):
        pair = tuple(
            torch.tensor(build(n, wavelet, mode, level, letter), dtype=dtype, device=device)
            for build in (analysis_matrix, synthesis_matrix)
        )
    return pair[0], pair[1]
