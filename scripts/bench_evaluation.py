"""Time and memory of scoring one large case: label file of 240×240×155 voxels with four classes.

A phantom's label map, and as its prediction the same map moved by one voxel with a twentieth of the voxels wrong at
random inside the brain. All of ``evaluating``'s metrics, from reading the label file to writing the prediction.

Usage:
    python -m scripts.bench_evaluation [--shape 240 240 155] [--repeats 5] [--json FILE]
"""

import argparse
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.commands.common import positive
from dcd_ext.data.phantoms import PhantomSpec, write_phantoms
from dcd_ext.evaluation import score_file
from dcd_ext.io import write_json
from dcd_ext.versions import environment
from scripts.benchmark import time_in_turns

CLASSES = ("NETC", "SNFH", "ET", "RC")


def make_prediction(truth: np.ndarray) -> np.ndarray:
    """``truth`` (X, Y, Z), moved and made wrong in places; scattered voxels are the worst case for lesion counts."""
    rng = np.random.default_rng(0)
    moved = np.roll(truth, 1, axis=0)
    wrong = (rng.random(truth.shape) < 0.05) & (truth > 0)
    moved[wrong] = rng.integers(0, len(CLASSES) + 1, int(wrong.sum()))
    return moved.astype(np.uint8)


def measure(shape: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Seconds of every repeat, and the largest size of this process."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(PhantomSpec(Path(folder, "data"), cases=1, shape=shape))
        label = next(Path(folder, "data").rglob("*-seg.nii.gz"))
        image: Any = nib.load(label)
        prediction, output = make_prediction(np.asarray(image.dataobj)), str(Path(folder, "prediction.nii.gz"))
        scores: dict[str, Any] = {}

        def score() -> None:
            scores.update(score_file("case", prediction, str(label), CLASSES, 2.0, output))

        seconds = time_in_turns({"score": score}, repeats)["score"]
    return {
        "shape": shape,
        "classes": {name: values["status"] for name, values in scores.items()},
        "seconds": {"median": statistics.median(seconds), "all": seconds},
        # Linux counts in KiB.
        "process_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "environment": environment(),
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155))
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    result = measure(tuple(args.shape), args.repeats)
    e, seconds = result["environment"], result["seconds"]["median"]
    print(f"{e['device']}, {e['cpus']} cores; {'×'.join(map(str, args.shape))} voxels, {len(CLASSES)} classes")
    print(f"{seconds:.2f} s per case (median of {args.repeats}), process {result['process_gib']:.2f} GiB")
    if args.json:
        write_json(result, args.json)


if __name__ == "__main__":
    main()
