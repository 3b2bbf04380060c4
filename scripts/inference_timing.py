"""Measure inference: seconds per volume, peak memory and Dice of a network in one way of running it.

Each combination lives in a process of its own, so that its peak memory is its own; the processes take turns, so that a
busy machine disturbs them alike.
"""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from monai.metrics import compute_dice
from torch.nn.functional import one_hot

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.data.cases import load_cases
from dcd_ext.errors import UserError
from scripts.benchmark import process_bytes, reset_peak
from scripts.inference_backends import build


@dataclass(frozen=True)
class Volumes:
    """Preprocessed images (1, M, X, Y, Z) and, where known, their label maps (1, 1, X, Y, Z)."""

    images: list[torch.Tensor]
    labels: list[torch.Tensor]


def load_volumes(bundle: BundleFolder, dataset_dir: Path | None, count: int, shape: tuple[int, ...] | None) -> Volumes:
    """Cases of fold 0 as the bundle's preprocessing makes them, or noise of ``shape`` (X, Y, Z; by default a patch)."""
    spec = next(iter(bundle.metadata["network_data_format"]["inputs"].values()))
    if dataset_dir is None:
        generator = torch.Generator().manual_seed(0)
        size = (1, spec["num_channels"], *(shape or spec["spatial_shape"]))
        return Volumes([torch.randn(size, generator=generator) for _ in range(count)], [])
    parser = ConfigParser()
    parser.read_config(str(bundle.root / "configs" / "train.json"))  # its preprocessing takes the label along
    preprocessing = parser.get_parsed_content("validate::preprocessing")
    cases = load_cases(str(dataset_dir), "validation")[:count]
    loaded = [preprocessing({key: case[key] for key in ("image", "label")}) for case in cases]
    plain = [{k: item[k].as_tensor().contiguous()[None] for k in ("image", "label")} for item in loaded]
    return Volumes([item["image"] for item in plain], [item["label"] for item in plain])


class Contender:
    """The network of the bundle ``root`` run by one of ``BACKENDS``, in a process of its own."""

    def __init__(self, root: Path, backend: str, volumes: Volumes, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = f"{root.name} {backend}"
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, root, backend, threads), daemon=True)
        self._process.start()
        other.close()
        self._pipe.send(volumes)
        self.start_seconds = float(self._answer())

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as e:
            raise UserError("a process ended early", self.name, "a result", "none", "is there enough memory?") from e
        if isinstance(answer, UserError):
            raise answer
        return answer

    def run(self) -> None:
        """One pass over all volumes."""
        self._pipe.send("run")
        self._answer()

    def finish(self) -> dict[str, Any]:
        """End the process: peak memory in bytes above the idle one (None where unknown), and mean Dice per class."""
        self._pipe.send("finish")
        answer = self._answer()
        self._process.join()
        return answer


def _serve(pipe: Connection, root: Path, backend: str, threads: int) -> None:
    """Build the network, then infer whenever asked."""
    torch.set_num_threads(threads)
    volumes: Volumes = pipe.recv()
    idle = process_bytes("VmRSS")
    reset_peak()
    try:
        start = time.perf_counter()
        bundle = BundleFolder(root)
        network, inferer = build(bundle, backend)
        with torch.inference_mode():
            inferer(volumes.images[0], network)  # compiles, and allocates what later passes use again
        pipe.send(time.perf_counter() - start)
    except UserError as e:
        pipe.send(e)
        return
    while pipe.recv() == "run":
        with torch.inference_mode():
            for image in volumes.images:
                inferer(image, network)
        pipe.send("done")
    peak = process_bytes("VmHWM")
    above = None if peak is None or idle is None else peak - idle
    pipe.send({"peak_bytes": above, "dice": _dice(network, inferer, volumes)})


def _dice(network: Any, inferer: Inferer, volumes: Volumes) -> list[float] | None:
    """Mean Dice per foreground class against the labels."""
    scores = []
    with torch.inference_mode():
        for image, label in zip(volumes.images, volumes.labels, strict=False):
            logits = inferer(image, network)
            assert isinstance(logits, torch.Tensor)
            found, truth = (one_hot(m.long(), logits.shape[1]).movedim(-1, 1) for m in (logits.argmax(1), label[0]))
            scores.append(compute_dice(found, truth, include_background=False))
    return torch.cat(scores).nanmean(0).tolist() if scores else None
