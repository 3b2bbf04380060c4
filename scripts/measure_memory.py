"""Peak memory of ``dcd predict`` on a large case, per shipped bundle, into bundle_src/memory.json.

Usage: python -m scripts.measure_memory [BUNDLE ...]     (then: python scripts/build_bundles.py)

A process reads, segments and writes an image without background, with OpenVINO in float32. The network computes the
first windows; the others repeat its result, which takes the same memory and a fraction of the time.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.data.memory import PeakMemory
from dcd_ext.errors import show_plainly
from dcd_ext.io import write_json
from dcd_ext.predict.runtime import Engine, Pipeline, cores
from dcd_ext.predict.standalone import write_standalone
from scripts.bench_predict_inputs import staged

STORED = Path("bundle_src/memory.json")
# by number of channels: a head scan at high resolution; a case of BraTS
ONE, SEVERAL = (512, 512, 200), (240, 240, 155)


class Sampled(Engine):
    """The first windows of a network, then copies of the last result."""

    def __init__(self, engine: Engine, computed: int) -> None:
        self._engine, self._computed = engine, computed

    def map(self, patches: Iterable[np.ndarray], at_a_time: int) -> Iterator[np.ndarray]:
        patches = iter(patches)
        last = np.empty(0)
        for result in self._engine.map(itertools.islice(patches, self._computed), at_a_time):
            last = result.copy()
            yield result
        for _ in patches:
            yield last.copy()


def write_case(folder: Path, channels: int, shape: tuple[int, ...], pixdim: tuple[float, ...]) -> list[Path]:
    """A file per channel, of 16 bits as scanners write them, that zips well and has no background."""
    steps = np.arange(np.prod(shape), dtype=np.int64).reshape(shape) % 991 + 1
    files = [folder / f"image_{channel:04}.nii.gz" for channel in range(channels)]
    for file in files:
        nib.save(nib.Nifti1Image(steps.astype(np.int16), np.diag([*pixdim, 1])), file)
    return files


def peak_gib(app: Path, files: list[Path], threads: int) -> dict[str, float]:
    """In this process: after one window of the network, and at most for a whole case; with what was computed for it."""
    pipeline, memory = Pipeline(app, threads), PeakMemory()
    pipeline.network(np.zeros((len(pipeline.channels), *pipeline.window.size), np.float32))
    base = memory.gib()
    pipeline.engine = Sampled(pipeline.engine, 2 * threads)
    labels, affine = pipeline(files)
    pipeline.write(labels, affine, files[0].with_name("labels.nii.gz"))
    return {"base": base or 0.0, "peak": memory.gib() or 0.0, "stated": pipeline.bytes_needed(files) / 2**30}


def measure(root: Path, shape: tuple[int, ...] | None = None, threads: int | None = None) -> dict[str, Any]:
    """What a fresh process finds about a bundle, with random weights if it has none."""
    threads = threads or cores()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = BundleFolder(staged(root, folder))
        app = write_standalone(bundle.root, folder / "app")
        channels = bundle.parser().get_parsed_content("in_channels")
        shape = shape or (ONE if channels == 1 else SEVERAL)
        files = write_case(folder, channels, shape, tuple(bundle.parser().get_parsed_content("pixdim")))
        command = [sys.executable, "-m", "scripts.measure_memory", "--here", str(threads), str(app), *map(str, files)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"image": [channels, *shape], "threads": threads, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="default: all that differ")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        threads, app, *files = options.here
        print(json.dumps(peak_gib(Path(app), [Path(file) for file in files], int(threads))))
        return
    stored = json.loads(STORED.read_text("utf-8")) if STORED.is_file() else {}
    # a distilled student has the network of the plain one
    for root in options.bundles or sorted(p for p in Path("bundles").iterdir() if not p.name.endswith("_dcd")):
        stored[root.name] = measure(root)
        print(root.name, stored[root.name], flush=True)
        write_json(stored, STORED)


if __name__ == "__main__":
    show_plainly()
    main()
