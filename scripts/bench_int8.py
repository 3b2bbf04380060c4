#!/usr/bin/env python3
"""Processor time of a window in float32, bfloat16 and INT8, by width of the hippocampus network, on one thread.

Usage: python -m scripts.bench_int8 [--page docs/predict.md]

Random weights and plain quantisation without a bound: they cost the same time as trained ones.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from dcd_ext.bundles.onnx_export import require
from dcd_ext.errors import show_plainly
from dcd_ext.predict.backends import has_bf16
from dcd_ext.predict.norms import make_narrow_norms_planar
from dcd_ext.predict.runtime import OpenVINO
from dcd_ext.predict.standalone import write_standalone
from dcd_ext.readers import read_pipeline
from dcd_ext.tables import Table, to_markdown, to_text
from scripts.bench_predict_inputs import staged
from scripts.benchmark import insert

# name -> division of the teacher's widths, and the smallest width
WIDTHS = {"smallest student": (8, 4), "student": (4, 8), "teacher": (1, 8)}
_BUNDLE = Path("bundles/hippocampus_segmentation_student")
_REPEATS = 5


def networks(factor: int, least: int, folder: Path) -> tuple[dict[str, OpenVINO], np.ndarray]:
    """A network of a width, by its arithmetic, each on one thread; and a window."""
    nncf, openvino = require("nncf"), require("openvino")
    source = Path(shutil.copytree(_BUNDLE, folder / "source" / _BUNDLE.name, ignore=shutil.ignore_patterns("*.pt")))
    config = json.loads((source / "configs" / "inference.json").read_text("utf-8"))
    config |= {"reduction_factor": factor, "min_features": least}
    (source / "configs" / "inference.json").write_text(json.dumps(config), "utf-8")
    exported = write_standalone(staged(source, folder), folder / "exported")
    spec = read_pipeline(exported)
    shape = [len(spec["channels"]), *spec["window"]["size"]]
    window = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    file, quantized = exported / spec["network"], folder / "int8.xml"
    model = openvino.Core().read_model(file)
    model.reshape([1, *shape])
    model = nncf.quantize(model, nncf.Dataset([window]), subset_size=1)
    make_narrow_norms_planar(model)
    openvino.save_model(model, quantized, compress_to_fp16=False)
    made = {name: OpenVINO(file, shape, 1, name) for name in ("f32", *(["bf16"] if has_bf16() else []))}
    return {**made, "int8": OpenVINO(quantized, shape, 1)}, window


def milliseconds(engines: dict[str, OpenVINO], window: np.ndarray) -> dict[str, float]:
    """Processor time of a window, the least of several runs in turns: other work on the machine only adds to it."""
    least = dict.fromkeys(engines, float("inf"))
    for _ in range(_REPEATS):
        for name, engine in engines.items():
            list(engine.map([window], 1))
            started = time.process_time()
            list(engine.map([window] * 5, 1))
            least[name] = min(least[name], (time.process_time() - started) * 200)
    return least


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put the table between this page's marks")
    options = parser.parse_args()
    rows = []
    for name, (factor, least) in WIDTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            times = milliseconds(*networks(factor, least, Path(folder)))
        shown = [f"{times[kind]:.1f}" if kind in times else "–" for kind in ("f32", "bf16", "int8")]
        shown += [f"{times['f32'] / times[kind]:.2f}×" if kind in times else "–" for kind in ("bf16", "int8")]
        rows.append([name, *shown])
    header = ["network", "float32 ms", "bfloat16 ms", "INT8 ms", "bfloat16 faster", "INT8 faster"]
    note = "Processor milliseconds of a window of 40×56×40 voxels on one thread; INT8 with float32 where not quantised."
    table = Table("", header, rows, note)
    print(to_text(table))
    if options.page:
        insert(to_markdown(table), options.page, "int8")


if __name__ == "__main__":
    show_plainly()
    main()
