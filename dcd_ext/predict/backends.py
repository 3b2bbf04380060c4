"""Choose what runs a bundle's network, and prepare it once per machine."""

import hashlib
import json
import logging
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, sha256, write_json
from dcd_ext.predict import runtime
from dcd_ext.predict.pipelines import FastPipeline, MonaiPipeline, Pipeline

logger = logging.getLogger(__name__)
# int8 is the one export that a bundle ships, because its bound was measured on data
BACKENDS = ("auto", "eager", "openvino", "openvino-bf16", "onnxruntime", "int8")
_CHOICES = ("openvino-bf16", "openvino", "int8", "onnxruntime")


def build_pipeline(root: Path, backend: str = "auto", device: str = "cpu", threads: int | None = None) -> Pipeline:
    """The pipeline of a bundle, or of a folder that ``dcd export --formats standalone`` made.

    Args:
        root: the bundle.
        backend: one of ``BACKENDS``; "auto" is the fastest of those that can be built here, measured once.
        device: for "eager", such as "cuda:0".
        threads: default: the cores this process may use.

    Raises:
        UserError: if the backend cannot be built, or the folder is no bundle.
    """
    threads = threads or runtime.cores()
    backend = choose_backend(root, backend, device, threads)
    if backend == "eager":
        return MonaiPipeline(root, device, threads)
    return FastPipeline(prepare(root, backend), threads, _precision(backend))


def choose_backend(root: Path, backend: str, device: str, threads: int) -> str:
    """What "auto" means here: the fastest on this machine, "eager" on another device than the CPU.

    Raises:
        UserError: if the folder is no trained bundle, or the backend runs on CPUs only.
    """
    if backend not in ("auto", "eager") and device != "cpu":
        step = "leave --device out, or use --backend eager"
        raise UserError("device without effect", "--device", f"cpu with --backend {backend}", device, step)
    if backend != "auto":
        return backend
    if (root / "pipeline.json").is_file():
        return "openvino"
    return _fastest(root, threads) if device == "cpu" else "eager"


def _precision(backend: str) -> str:
    return "bf16" if backend == "openvino-bf16" else "f32"


def prepare(root: Path, backend: str) -> Path:
    """Folder with the network of a backend, exported at its first use.

    Raises:
        UserError: if it cannot be exported, or INT8 was not.
    """
    if (root / "pipeline.json").is_file():
        return root
    if backend == "int8":
        folder = root / "models" / "int8"
        if not (folder / "pipeline.json").is_file():
            step = f"dcd export {root} --formats int8 --dataset_dir DATA"
            raise UserError("no INT8 network", folder, "an export", "none", step)
        return folder
    kind = backend.removesuffix("-bf16")
    folder = _cache(root) / kind
    if not (folder / "pipeline.json").is_file():
        from dcd_ext.predict.standalone import write_standalone  # imports torch

        logger.info("exporting the network for %s (once)", kind)
        write_standalone(root, folder, kind)
    return folder


def _cache(root: Path) -> Path:
    """A folder of this user's for exports of these weights with this config."""
    weights, config = root / "models" / "model.pt", root / "configs" / "inference.json"
    try:
        key = hashlib.sha256(f"{sha256(weights)}{sha256(config)}{sha256(runtime.__file__)}".encode()).hexdigest()[:16]
    except OSError as error:
        step = "check the path; train the bundle or download its weights"
        raise UserError("not a trained bundle", error.filename, "a readable file", error.strerror, step) from error
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return make_folder(Path(home, "dcd", f"{root.resolve().name}-{key}"))


def _fastest(root: Path, threads: int) -> str:
    """The backend that ran one window fastest on this machine, remembered beside its export."""
    path = _cache(root) / f"fastest_{threads}_{_machine()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # not measured yet, or damaged
        return str(json.loads(path.read_text("utf-8"))["backend"])
    seconds: dict[str, float] = {}
    for backend in _CHOICES:
        try:
            seconds[backend] = _seconds_per_window(root, backend, threads)
        except (UserError, ImportError) as error:
            logger.info("%s left out: %s", backend, error)
    backend = min(seconds, key=lambda name: seconds[name]) if seconds else "eager"
    logger.info("backend %s; seconds per window: %s", backend, {k: round(v, 4) for k, v in seconds.items()})
    write_json({"backend": backend, "seconds_per_window": seconds}, path)
    return backend


def _seconds_per_window(root: Path, backend: str, threads: int) -> float:
    if backend == "openvino-bf16" and not _has_bf16():
        raise UserError("no bfloat16", backend, "a processor with bfloat16", "none", "use openvino")
    pipeline: Any = FastPipeline(prepare(root, backend), threads, _precision(backend))
    shape = (len(pipeline.channels), *pipeline.spec["window"]["size"])
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pipeline.network(data)
    started = time.perf_counter()
    pipeline.network(data)
    return time.perf_counter() - started


def _has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _machine() -> str:
    """The processor, as a part of a file's name."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text("utf-8").splitlines() if cpu.is_file() else []
    model = next((line.partition(":")[2] for line in lines if line.startswith("model name")), platform.processor())
    return hashlib.sha256(f"{platform.machine()}{model}".encode()).hexdigest()[:8]
