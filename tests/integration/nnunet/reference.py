"""Write tests/nnunet/reference.npz: what nnU-Net computes for small arrays; runs in the environment of nnU-Net.

python reference.py OUTPUT
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

SIZES = [(24, 24), (25, 24), (35, 24), (37, 24), (70, 24), (73, 40), (96, 56), (31, 7), (100, 9)]
PATCHES = [(6, 8, 5), (3, 12, 10)]
# current spacing, new spacing, order, type
RESAMPLING = [
    ((1.0, 1.0, 1.0), (1.5, 0.8, 1.2), 3, "float32"),
    ((4.0, 1.0, 1.0), (3.0, 1.2, 1.0), 3, "float32"),
    ((1.0, 3.7, 1.1), (1.0, 1.0, 1.0), 3, "float32"),
    ((1.0, 1.0, 1.0), (0.9, 1.0, 3.5), 3, "float32"),
    ((4.0, 4.0, 1.0), (1.3, 3.0, 2.0), 3, "float32"),
    ((3.0, 1.0, 1.0), (2.0, 1.1, 1.4), 1, "float16"),
    ((5.0, 1.0, 0.9), (3.0, 0.7, 1.4), 1, "float16"),
]
# normalisation, masks, transpose_forward, image spacing (z, y, x), the plan's spacing
PREPROCESSING = [
    (["ZScoreNormalization"] * 2, [True, False], [2, 0, 1], (1.0, 1.1, 4.5), (4.0, 1.0, 1.0)),
    (["CTNormalization", "RescaleTo01Normalization"], [False, False], [0, 1, 2], (2.0, 1.0, 1.0), (1.5, 1.5, 1.5)),
    (["NoNormalization", "ZScoreNormalization"], [False, True], [1, 2, 0], (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
]
INTENSITIES = {"mean": 1.5, "std": 2.5, "percentile_00_5": -3.0, "percentile_99_5": 4.0}


def image() -> np.ndarray:
    """(2, z, y, x) with an empty border and a hole that only one of the channels has."""
    values = np.random.default_rng(1).normal(1, 3, (2, 9, 11, 10)).astype("float32")
    values[:, :2] = values[:, :, -1:] = values[:, :, :, 8:] = 0
    values[:, 5, 5, 4] = 0
    values[0, 4, 4, 4] = 0
    return values


def preprocessed(schemes, masks, transpose, spacing, new_spacing) -> np.ndarray:
    def resampling(order, is_seg):
        return lambda data, shape, old, new: resample_data_or_seg_to_shape(
            data, shape, old, new, is_seg, order, 0, None
        )

    plans = SimpleNamespace(
        transpose_forward=transpose,
        foreground_intensity_properties_per_channel={str(channel): INTENSITIES for channel in range(2)},
    )
    configuration = SimpleNamespace(
        spacing=list(new_spacing),
        normalization_schemes=schemes,
        use_mask_for_norm=masks,
        resampling_fn_data=resampling(3, False),
        resampling_fn_seg=resampling(1, True),
    )
    case = image(), None, {"spacing": list(spacing)}, plans, configuration, {}
    return DefaultPreprocessor(verbose=False).run_case_npy(*case)[0]


def main() -> None:
    arrays = {"image": image()}
    for number, patch in enumerate(PATCHES):
        arrays[f"gaussian_{number}"] = compute_gaussian(
            patch, value_scaling_factor=10, device=torch.device("cpu")
        ).numpy()
    source = np.random.default_rng(0).normal(0, 2, (2, 5, 7, 6))
    arrays["source"] = source
    for number, (old, new, order, kind) in enumerate(RESAMPLING):
        shape = compute_new_shape(source.shape[1:], old, new)
        data = source.astype(kind)
        arrays[f"resampled_{number}"] = resample_data_or_seg_to_shape(data, shape, old, new, False, order, 0, None)
    for number, case in enumerate(PREPROCESSING):
        arrays[f"preprocessed_{number}"] = preprocessed(*case)
    windows = [compute_steps_for_sliding_window((size,), (patch,), 0.5)[0] for size, patch in SIZES]
    about = {
        "windows": [[*size, starts] for size, starts in zip(SIZES, windows, strict=True)],
        "patches": PATCHES,
        "resampling": RESAMPLING,
        "preprocessing": PREPROCESSING,
        "intensities": INTENSITIES,
    }
    np.savez_compressed(sys.argv[1], about=json.dumps(about), **arrays)


if __name__ == "__main__":
    main()
