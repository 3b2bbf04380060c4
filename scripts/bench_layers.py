#!/usr/bin/env python3
"""Where a window's time goes inside a network, by kind of layer: float32 in OpenVINO on one thread.

Usage: python -m scripts.bench_layers BUNDLE ... [--page docs/predict.md]

Random weights where a bundle has none: they cost the same time.
"""

import argparse
import math
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.bundles.onnx_export import require
from dcd_ext.errors import show_plainly
from dcd_ext.predict.standalone import write_standalone
from dcd_ext.readers import read_pipeline
from dcd_ext.tables import Table, to_markdown, to_text
from scripts.bench_predict_inputs import staged
from scripts.benchmark import insert

# column -> OpenVINO's types of layers
KINDS = {
    "convolutions": ("Convolution",),
    "transposed": ("ConvolutionBackpropData",),
    "norms": ("MVN",),
    "sums, activations": ("Subgraph", "Eltwise"),
}
_REPEATS = 3


def giga_operations(model: Any) -> float:
    """10⁹ multiplications and additions of the convolutions of an OpenVINO model of one input shape."""
    total = 0
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind in ("Convolution", "ConvolutionBackpropData"):
            grid = node.get_output_shape(0) if kind == "Convolution" else node.get_input_shape(0)
            total += 2 * math.prod(grid[2:]) * math.prod(node.get_input_shape(1))
    return total / 1e9


def profile(root: Path, folder: Path) -> list[str]:
    """A row: operations, processor seconds, and each kind's share of the least of several runs."""
    openvino = require("openvino")
    exported = write_standalone(staged(root, folder), folder / "exported")
    spec = read_pipeline(exported)
    shape = [1, len(spec["channels"]), *spec["window"]["size"]]
    model = openvino.Core().read_model(exported / spec["network"])
    model.reshape(shape)
    settings = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()
    window = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    least, layers = math.inf, Counter[str]()
    for _ in range(_REPEATS):
        started = time.process_time()
        request.infer([window])
        if (seconds := time.process_time() - started) < least:
            least, layers = seconds, Counter()
            for layer in request.get_profiling_info():
                layers[layer.node_type] += layer.real_time.total_seconds()
    shares = [sum(layers[kind] for kind in kinds) / layers.total() for kinds in KINDS.values()]
    operations = giga_operations(model)
    numbers = [f"{operations:.0f}", f"{least:.2f}", f"{operations / least:.0f}"]
    return [root.name, *numbers, *(f"{100 * share:.0f} %" for share in [*shares, 1 - sum(shares)])]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put the table between this page's marks")
    options = parser.parse_args()
    rows = []
    for root in options.bundles:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(profile(root, Path(folder)))
    header = ["network", "GFLOP", "processor s", "GFLOP/s", *KINDS, "rest"]
    table = Table("", header, rows, "One window in float32 on one thread; «rest»: concatenation, pooling, reordering.")
    print(to_text(table))
    if options.page:
        insert(to_markdown(table), options.page, "layers")


if __name__ == "__main__":
    show_plainly()
    main()
