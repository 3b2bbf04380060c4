"""Time and memory of scoring one large case: label file of 240×240×155 voxels with four classes.

A phantom's label map, and as its prediction the same map moved by one voxel with a twentieth of the voxels wrong at
random inside the brain. All of ``evaluating``'s metrics, from reading the label file to writing the prediction.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.data.memory import PeakMemory
from dcd_ext.data.phantoms import PhantomSpec, write_phantoms
from dcd_ext.evaluation import score_file
from dcd_ext.versions import processor
from scripts.benchmark import time_in_turns

SHAPE, REPEATS = (240, 240, 155), 5
CLASSES = ("NETC", "SNFH", "ET", "RC")


def make_prediction(truth: np.ndarray) -> np.ndarray:
    """``truth`` (X, Y, Z), moved and made wrong in places; scattered voxels are the worst case for lesion counts."""
    rng = np.random.default_rng(0)
    moved = np.roll(truth, 1, axis=0)
    wrong = (rng.random(truth.shape) < 0.05) & (truth > 0)
    moved[wrong] = rng.integers(0, len(CLASSES) + 1, int(wrong.sum()))
    return moved.astype(np.uint8)


def main() -> None:
    """Seconds of a case, and the largest size of this process."""
    memory = PeakMemory()
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(PhantomSpec(Path(folder, "data"), cases=1, shape=SHAPE))
        label = next(Path(folder, "data").rglob("*-seg.nii.gz"))
        image: Any = nib.load(label)
        prediction, output = make_prediction(np.asarray(image.dataobj)), str(Path(folder, "prediction.nii.gz"))
        score = partial(score_file, "case", prediction, image.affine, str(label), CLASSES, 2.0, output)
        seconds = time_in_turns({"score": score}, REPEATS)["score"]
    print(f"{processor()}; {'×'.join(map(str, SHAPE))} voxels, {len(CLASSES)} classes")
    print(f"{statistics.median(seconds):.2f} s per case (median of {REPEATS}), process {memory.gib():.2f} GiB")


if __name__ == "__main__":
    main()
