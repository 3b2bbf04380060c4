"""A MONAI Label server of toy bundles, started and asked as a user does."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import requests
import torch

from tests.conftest import ROOT
from tests.integration.conftest import toy_bundle

TRAIN = {"max_epochs": 1, "val_split": 0.4, "device": "cpu", "multi_gpu": False}


class Server:
    """A running server and where its files are."""

    def __init__(self, folder: Path, bundles: list[Path]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.app, self.log = folder / "app", folder / "server.log"
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(ROOT / "scripts" / "monai_label.sh"), "--studies", str(folder / "studies")]
        command += ["--app", str(self.app), "--port", str(self.port), *map(str, bundles)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd="/", stdout=log, stderr=subprocess.STDOUT, env=variables, start_new_session=True
            )

    def wait(self, seconds: float = 300) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                requests.get(f"{self.url}/info/", timeout=60).raise_for_status()
                return
            except requests.ConnectionError:
                time.sleep(0.5)
        pytest.fail(self.log.read_text())

    def infer(self, model: str, image: str) -> nib.Nifti1Image:
        """The label map of one image."""
        reply = requests.post(f"{self.url}/infer/{model}", params={"image": image, "output": "image"}, timeout=600)
        assert reply.status_code == 200, reply.text + self.log.read_text()
        return nib.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(reply.content)))

    def train(self, model: str, **options: Any) -> dict[str, Any]:
        """Train as viewers do, in the background, and wait for the end; the task as the server describes it."""
        reply = requests.post(f"{self.url}/train/{model}", json={**TRAIN, **options}, timeout=60)
        assert reply.status_code == 200, reply.text + self.log.read_text()
        end = time.monotonic() + 600
        while time.monotonic() < end:
            task = requests.get(f"{self.url}/train/", timeout=60).json()
            if task["id"] == reply.json()["id"] and task["status"] in ("DONE", "ERROR"):
                return task
            time.sleep(0.5)
        pytest.fail(self.log.read_text())

    def weights(self, model: str) -> dict:
        """State dict of the server's copy of a bundle."""
        return torch.load(self.app / "model" / model / "models" / "model.pt", weights_only=True)


@contextlib.contextmanager
def serving(folder: Path, names: list[str]) -> Iterator[Server]:
    """A server of toy bundles on ``<folder>/studies`` while the block runs."""
    bundles = [toy_bundle(name, folder / "bundles", seed) for seed, name in enumerate(names)]
    server = Server(folder, bundles)
    server.bundles = {bundle.name: bundle for bundle in bundles}
    try:
        server.wait()
        yield server
    finally:
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait(60)
