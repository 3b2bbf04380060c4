"""Choose what runs a bundle's network, by what each costs here, and prepare it once per machine."""

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, sha256, write_json
from dcd_ext.predict import runtime
from dcd_ext.predict.pipelines import FastPipeline, MonaiPipeline
from dcd_ext.versions import processor

logger = logging.getLogger(__name__)
# int8 is the one export that a bundle ships, because its bound was measured on data
BACKENDS = ("auto", "eager", "openvino", "openvino-bf16", "onnxruntime", "int8")
_CHOICES = ("openvino-bf16", "openvino", "int8", "onnxruntime")
# what "auto" expects of a caller that does not say how many
_CASES = 20
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# beside a first case as long as this, what is not the case does not matter
_LONG_S = 5.0


def build_pipeline(root: Path, backend: str, device: str, threads: int | None) -> runtime.Pipeline:
    """The pipeline of a bundle, or of a folder that ``dcd export --formats standalone`` made.

    The arguments are those of :class:`dcd_ext.predict.Predictor`; "auto" is the fastest of the backends that can be
    built here, measured once. Refused if the backend cannot be built, or the folder is no bundle.
    """
    threads = threads or runtime.cores()
    backend = choose_backend(root, backend, device, threads)
    if backend == "eager":
        return MonaiPipeline(root, device, threads)
    return FastPipeline(prepare(root, backend), threads, _precision(backend))


def choose_backend(root: Path, backend: str, device: str, threads: int, cases: int = _CASES) -> str:
    """What "auto" means here: the fastest for so many cases on this machine, "eager" on another device than the CPU.

    Refused if the folder is no trained bundle, or the backend runs on CPUs only.
    """
    if backend not in ("auto", "eager") and device != "cpu":
        step = "leave --device out, or use --backend eager"
        raise UserError("device without effect", "--device", f"cpu with --backend {backend}", device, step)
    if backend != "auto":
        return backend
    if (root / "pipeline.json").is_file():
        return "openvino"
    return _fastest(root, threads, cases) if device == "cpu" else "eager"


def _precision(backend: str) -> str:
    return "bf16" if backend == "openvino-bf16" else "f32"


def prepare(root: Path, backend: str) -> Path:
    """Folder with the network of a backend, exported at its first use; refused if that fails, or INT8 was not."""
    if backend == "openvino-bf16" and find_spec("openvino") and not has_bf16():
        raise UserError("no bfloat16", backend, "a processor with bfloat16", "none", "choose --backend openvino")
    if (root / "pipeline.json").is_file():
        return root
    if backend == "int8":
        if not _int8(root).is_file():
            step = f"dcd export {root} --formats int8 --dataset_dir DATA"
            raise UserError("no INT8 network", _int8(root).parent, "an export", "none", step)
        return _int8(root).parent
    kind = backend.removesuffix("-bf16")
    folder = _cache(root) / kind
    if not (folder / "pipeline.json").is_file():
        from dcd_ext.predict.standalone import write_standalone  # imports torch

        logger.info("exporting the network for %s (once)", kind)
        write_standalone(root, folder, kind)
    return folder


def _int8(root: Path) -> Path:
    return root / "models" / "int8" / "pipeline.json"


def fingerprint(root: Path) -> str:
    """Of the weights and config that decide about the label maps of a bundle, or of an exported folder.

    Refused if it has none.
    """
    if (root / "pipeline.json").is_file():
        files = [root / "pipeline.json", *sorted(root.glob("network*"))]
    else:
        files = [root / "models" / "model.pt", root / "configs" / "inference.json"]
    try:
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16]
    except OSError as error:
        step = "check the path; train the bundle or download its weights"
        raise UserError("not a trained bundle", error.filename, "a readable file", error.strerror, step) from error


def _cache(root: Path) -> Path:
    """A folder of this user's for exports of these weights with this config."""
    key = hashlib.sha256(f"{fingerprint(root)}{sha256(runtime.__file__)}".encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return make_folder(Path(home, "dcd", f"{root.resolve().name}-{key}"))


def _fastest(root: Path, threads: int, cases: int) -> str:
    """The backend that ends first with so many cases; what each costs is remembered beside its export."""
    machine = hashlib.sha256(f"{platform.machine()}{processor()}".encode()).hexdigest()[:8]
    path = _cache(root) / f"seconds_{threads}_{machine}.json"
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):  # not measured yet, or damaged
        known = {name: [float(s) for s in cost] for name, cost in json.loads(path.read_text("utf-8")).items()}
    for backend in _CHOICES:
        if backend not in known and (cost := _cost(root, backend, threads)) is not None:
            known[backend] = cost
            write_json(known, path)
    costs = {backend: Cost(*seconds) for backend, seconds in known.items() if seconds}
    if not costs:
        return "eager"
    backend = min(costs, key=lambda name: costs[name].start + cases * costs[name].case)
    logger.info("backend %s; %s", backend, {name: [round(s, 3) for s in cost] for name, cost in costs.items()})
    return backend


def _cost(root: Path, backend: str, threads: int) -> Sequence[float] | None:
    """Of a backend, empty if it fails; None if it may be had later: INT8 exported, its engine installed."""
    engine = "onnxruntime" if backend == "onnxruntime" else "openvino"
    if find_spec(engine) is None or (backend == "int8" and not _int8(root).is_file()):
        return None
    try:
        return measure(prepare(root, backend), threads, _precision(backend))
    except UserError as error:
        logger.info("%s left out: %s", backend, error)
        return ()


def has_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 here: it takes float32 where the processor has none."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Cost(NamedTuple):
    """Seconds of a backend."""

    start: float  # importing the engine, reading and compiling the network
    case: float  # an image of two windows


def measure(folder: Path, threads: int, precision: str) -> Cost:
    """Cost of a standalone folder's network, in a process that has imported no engine yet, and gives its memory back.

    Refused if it does not run.
    """
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()", str(folder), str(threads), precision]
    paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise UserError("network does not run", folder, "a result", reason, "choose another --backend")
    return Cost(*json.loads(result.stdout))


def _main() -> None:
    """Print the cost of the network that the command line names."""
    folder, threads, precision = sys.argv[1:]
    started = time.perf_counter()
    pipeline = runtime.Pipeline(Path(folder), int(threads), precision)
    first, *others = pipeline.window.size
    shape = (len(pipeline.channels), first + first // 2, *others)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    built = time.perf_counter()
    pipeline.network(data)  # compiles
    once = time.perf_counter()
    cost = Cost(built - started, once - built)
    if cost.case <= _LONG_S:
        pipeline.network(data)
        case = time.perf_counter() - once
        cost = Cost(once - started - case, case)
    print(json.dumps(cost))
