"""What a window costs a network in OpenVINO on one thread: in each arithmetic by width, and by kind of layer.

Usage: python -m scripts.bench_window BUNDLE ... [--page docs/predict.md]

The widths are those of the hippocampus network, with random weights and plain quantisation without a bound; the layers
are those of the bundles in float32, with random weights where they have none: all cost the same time as trained ones.
"""

import argparse
import json
import math
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.bundles.export import require
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import show_plainly
from dcd_ext.evaluation.record import count_flops
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
# column -> OpenVINO's types of layers
KINDS = {
    "convolutions": ("Convolution",),
    "transposed": ("ConvolutionBackpropData",),
    "norms": ("MVN",),
    "sums, activations": ("Subgraph", "Eltwise"),
}
_REPEATS = 5


def exported(root: Path, folder: Path) -> tuple[Path, Any, np.ndarray]:
    """A bundle's network: its file, its OpenVINO model for windows (1, M, X, Y, Z), and such a window."""
    made = write_standalone(staged(root, folder), folder / "exported")
    spec = read_pipeline(made)
    window = np.random.default_rng(0).normal(size=(1, len(spec["channels"]), *spec["window"]["size"]))
    model = require("openvino").Core().read_model(made / spec["network"])
    model.reshape(list(window.shape))
    return made / spec["network"], model, window.astype(np.float32)


def milliseconds(factor: int, least: int, folder: Path) -> dict[str, float]:
    """Processor time of a window by arithmetic, the least of runs in turns: other work only adds to it."""
    source = Path(shutil.copytree(_BUNDLE, folder / "source" / _BUNDLE.name, ignore=shutil.ignore_patterns("*.pt")))
    config = json.loads((source / "configs" / "inference.json").read_text("utf-8"))
    config |= {"reduction_factor": factor, "min_features": least}
    (source / "configs" / "inference.json").write_text(json.dumps(config), "utf-8")
    file, model, window = exported(source, folder)
    nncf, quantized, shape = require("nncf"), folder / "int8.xml", window.shape[1:]
    model = nncf.quantize(model, nncf.Dataset([window]), subset_size=1)
    make_narrow_norms_planar(model)
    require("openvino").save_model(model, quantized, compress_to_fp16=False)
    engines = {name: OpenVINO(file, shape, 1, name) for name in ("f32", *(["bf16"] if has_bf16() else []))}
    engines["int8"] = OpenVINO(quantized, shape, 1)
    fastest = dict.fromkeys(engines, math.inf)
    for _ in range(_REPEATS):
        for name, engine in engines.items():
            list(engine.map([window], 1))
            started = time.process_time()
            list(engine.map([window] * 5, 1))
            fastest[name] = min(fastest[name], (time.process_time() - started) * 200)
    return fastest


def widths_table() -> Table:
    """A row per width."""
    rows = []
    for name, (factor, least) in WIDTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            times = milliseconds(factor, least, Path(folder))
        shown = [f"{times[kind]:.1f}" if kind in times else "–" for kind in ("f32", "bf16", "int8")]
        shown += [f"{times['f32'] / times[kind]:.2f}×" if kind in times else "–" for kind in ("bf16", "int8")]
        rows.append([name, *shown])
    header = ["network", "float32 ms", "bfloat16 ms", "INT8 ms", "bfloat16 faster", "INT8 faster"]
    note = "Processor milliseconds of a window of 40×56×40 voxels on one thread; INT8 with float32 where not quantised."
    return Table("", header, rows, note)


def profile(root: Path, folder: Path) -> list[str]:
    """A row: operations, processor seconds, and each kind's share of the least of several runs."""
    _, model, window = exported(root, folder)
    settings = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = require("openvino").compile_model(model, "CPU", settings).create_infer_request()
    least, layers = math.inf, Counter[str]()
    for _ in range(_REPEATS):
        started = time.process_time()
        request.infer([window])
        if (seconds := time.process_time() - started) < least:
            least, layers = seconds, Counter()
            for layer in request.get_profiling_info():
                layers[layer.node_type] += layer.real_time.total_seconds()
    shares = [sum(layers[kind] for kind in kinds) / layers.total() for kinds in KINDS.values()]
    network = BundleFolder(staged(root, folder)).network()
    operations = (count_flops(network, window.shape[1:]) or 0) / 1e9
    numbers = [f"{operations:.0f}", f"{least:.2f}", f"{operations / least:.0f}"]
    return [root.name, *numbers, *(f"{100 * share:.0f} %" for share in [*shares, 1 - sum(shares)])]


def layers_table(bundles: list[Path]) -> Table:
    """A row per bundle."""
    rows = []
    for root in bundles:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(profile(root, Path(folder)))
    header = ["network", "GFLOP", "processor s", "GFLOP/s", *KINDS, "rest"]
    return Table("", header, rows, "One window in float32 on one thread; «rest»: concatenation, pooling, reordering.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put the tables between this page's marks")
    options = parser.parse_args()
    for name, table in (("int8", widths_table()), ("layers", layers_table(options.bundles))):
        print(to_text(table))
        if options.page:
            insert(to_markdown(table), options.page, name)


if __name__ == "__main__":
    show_plainly()
    main()
