"""Training in several processes: it computes what one process does, and survives the death of any of them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.acceptance.conftest import config_files
from tests.bundles.exact import assert_same_files
from tests.conftest import read_json

pytestmark = pytest.mark.slow
NAME = "hippocampus_segmentation_student_dcd"
STEPS, PATIENCE = 20, 600
# minutes: a restarted job imports MONAI anew each time
restarts = pytest.mark.skipif(os.environ.get("DCD_INTEGRATION") != "1", reason="minutes long: --integration")


@pytest.fixture(scope="module")
def same_batches(tmp_path_factory):
    """An overlay without randomness: step k sees the same cases, whoever shares them."""
    share = "[int(os.environ.get('RANK', 0))::int(os.environ.get('WORLD_SIZE', 1))]"
    crop = {"_target_": "ResizeWithPadOrCropd", "keys": ["image", "label"], "spatial_size": "@patch_size"}
    typed = {"_target_": "EnsureTyped", "keys": ["image", "label"], "track_meta": False}
    content = {
        "train::random_transforms": [crop, typed],
        "train::sampler": f"$[i % len(@train::dataset) for i in range({2 * STEPS})]{share}",
        "train::trainer::accumulation_steps": 1,
    }
    file = tmp_path_factory.mktemp("overlay") / "same_batches.json"
    file.write_text(json.dumps(content), "utf-8")
    return file


@pytest.fixture(scope="module")
def whole_batch(bundles, same_batches, tmp_path_factory):
    """One process, two cases a step."""
    return train(bundles(NAME), same_batches, tmp_path_factory.mktemp("one"), 2)


def train(bundle, overlay, folder, batch_size, steps=STEPS, processes=0, accumulation=1):
    """The last checkpoint and the record of one epoch; DCD acts from its first step."""
    files = config_files("train", *(["multi_gpu_train"] if processes else []), overlay)
    where = ["--dataset_dir", bundle.data, "--output_dir", folder, "--ckpt_dir", folder / "models", "--num_workers", 0]
    size = ["--batch_size", batch_size, "--iterations_per_epoch", steps, "--max_epochs", 1]
    size += ["--train::trainer::accumulation_steps", accumulation, "--kd_schedule", 0.5]
    bundle.monai("run", "training", *files, *where, *size, processes=processes)
    checkpoint = torch.load(folder / "checkpoint_last.pt", weights_only=True)
    return checkpoint, read_json(folder / "training.json")["epochs"][0]


def assert_equal(found, expected):
    """Weights, averages, projections and momenta, and the losses of the epoch."""
    for part in ("network", "kd_loss"):
        for name, tensor in expected[0][part].items():
            torch.testing.assert_close(found[0][part][name], tensor, rtol=1e-5, atol=1e-5)
    for name, tensor in expected[0]["ema"]["model"].items():
        torch.testing.assert_close(found[0]["ema"]["model"][name], tensor, rtol=1e-5, atol=1e-5)
    assert found[0]["ema"]["updates"] == expected[0]["ema"]["updates"] == STEPS
    for name in ("loss", "seg_loss", "kd_loss"):
        assert found[1][name] == pytest.approx(expected[1][name], rel=1e-5)


def test_two_processes_with_half_the_batch_equal_one(bundles, same_batches, whole_batch, tmp_path):
    assert_equal(train(bundles(NAME), same_batches, tmp_path, 1, processes=2), whole_batch)


def test_two_accumulated_batches_equal_one(bundles, same_batches, whole_batch, tmp_path):
    assert_equal(train(bundles(NAME), same_batches, tmp_path, 1, 2 * STEPS, accumulation=2), whole_batch)


def test_an_epoch_does_not_end_within_a_step(bundles, same_batches, tmp_path):
    bundle = bundles(NAME)
    where = ["--dataset_dir", bundle.data, "--output_dir", tmp_path, "--ckpt_dir", tmp_path]
    steps = ["--iterations_per_epoch", 3, "--batch_size", 1, "--train::trainer::accumulation_steps", 2]
    printed = bundle.monai("run", "training", *config_files("train"), *where, *steps, code=1)
    assert "an epoch ends within a step" in printed.splitlines()[-1]


class Job:
    """A training under torchrun, which starts it again when a process of it has died."""

    def __init__(self, bundle, folder: Path, restarts: int) -> None:
        self.folder = folder
        files = config_files("train", "multi_gpu_train")
        where = ["--dataset_dir", bundle.data, "--output_dir", folder, "--ckpt_dir", folder / "models"]
        size = ["--max_epochs", 3, "--iterations_per_epoch", 4, "--validate::inferer::overlap", 0.0]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", f"--max-restarts={restarts}"]
        job = ["-m", "monai.bundle", "run", "training", *files, *where, *size, "--resume", "auto"]
        self.log = (folder.parent / f"{folder.name}.log").open("w")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        command = [sys.executable, *torchrun, *map(str, job)]
        self.process = subprocess.Popen(
            command, cwd=bundle.root, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"monai.bundle" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def finish(self) -> None:
        code = self.process.wait(PATIENCE)
        self.log.close()
        assert code == 0, Path(self.log.name).read_text("utf-8")


def losses(folder):
    return [{k: v for k, v in e.items() if "seconds" not in k} for e in read_json(folder / "training.json")["epochs"]]


@restarts
@pytest.mark.integration
def test_a_job_whose_processes_die_ends_as_one_whose_processes_did_not(bundles, tmp_path):
    moments, bundle = int(os.environ.get("DCD_INTERRUPTIONS", "2")), bundles(NAME)
    clock = time.monotonic()
    Job(bundle, tmp_path / "whole", 0).finish()
    seconds = time.monotonic() - clock
    job = Job(bundle, tmp_path / "killed", moments)
    for number in range(moments):
        time.sleep(random.Random(number).uniform(0.3, 0.9) * seconds)
        if job.process.poll() is None and len(workers := job.workers()) == 2:
            os.kill(workers[number % 2], signal.SIGKILL)
    job.finish()
    assert_same_files(tmp_path / "killed", tmp_path / "whole", "models/model.pt")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob(".tmp-*"))


def test_fewer_cases_than_processes(bundles, tmp_path):
    bundle = bundles(NAME)
    where = ["--dataset_dir", bundle.data, "--output_dir", tmp_path, "--ckpt_dir", tmp_path, "--fold", 1]
    printed = bundle.monai("run", "training", *config_files("train", "multi_gpu_train"), *where, processes=2, code=1)
    # of the processes' own; torchrun adds a traceback of itself
    assert re.findall(r"(?m)^error: (fewer \w+ cases than processes)", printed)
