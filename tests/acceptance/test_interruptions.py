"""Trainings that are killed or asked to stop at random moments, and resumed.

Two interruptions of each kind, or ``DCD_INTERRUPTIONS`` of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.acceptance.conftest import config_files
from tests.bundles.exact import assert_same_files
from tests.conftest import BUNDLES, read_json
from tests.processes import start_fork

pytestmark = pytest.mark.slow
NAME = "hippocampus_segmentation_student_dcd"
# few windows, and one case to validate on
QUICK = ["--validate::inferer::overlap", 0.0, "--fold", 1]
PATIENCE, EPOCHS = 900, 3
COUNT = int(os.environ.get("DCD_INTERRUPTIONS", "2"))


class Training:
    """One training in a folder of its own."""

    def __init__(self, bundle, method, folder: Path, workers: int) -> None:
        overlay = [BUNDLES / NAME / "configs" / "methods" / f"{method}.json"] if method else []
        self.arguments = ["run", "training", *config_files("train", *overlay), "--dataset_dir", bundle.data]
        self.arguments += ["--output_dir", folder, "--ckpt_dir", folder / "models", "--num_workers", workers]
        self.arguments += ["--max_epochs", EPOCHS, "--iterations_per_epoch", 4, "--val_interval", 2, *QUICK]
        self.root, self.folder = bundle.root, folder

    def start(self):
        """Begin, or go on with what there is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        resume = (self.folder / "checkpoint_last.pt").exists()
        arguments = [*self.arguments, "--resume", resume]
        return start_fork("monai.bundle", arguments, self.root, self.folder, {"OMP_NUM_THREADS": "1"})

    def is_complete(self) -> bool:
        """Whether its last epoch is saved: what was killed then has nothing left to do, and refuses to go on."""
        last = self.folder / "checkpoint_last.pt"
        return last.exists() and torch.load(last, weights_only=True)["epoch"] == EPOCHS

    def finish(self) -> float:
        """Train to the end; the seconds it took."""
        clock = time.monotonic()
        process = self.start()
        process.join(PATIENCE)
        printed = "".join((self.folder / name).read_text("utf-8") for name in ("stdout", "stderr"))
        assert process.exitcode == 0, printed
        return time.monotonic() - clock

    def interrupt(self, number: int, after: float, in_a_save: bool) -> int | None:
        """Send a signal after some seconds, or then in the first moment in which a file is being written."""
        process = self.start()
        process.join(after)
        while in_a_save and process.is_alive() and not list(self.folder.rglob(".tmp-*")):
            pass
        if process.is_alive():
            os.kill(process.pid, number)
        process.join(PATIENCE)
        return process.exitcode


def losses(folder: Path) -> list:
    return [{k: v for k, v in e.items() if "seconds" not in k} for e in read_json(folder / "training.json")["epochs"]]


@pytest.mark.parametrize(
    ("number", "method", "workers"), [(signal.SIGKILL, "", 0), (signal.SIGTERM, "recokd", 2)], ids=["kill", "terminate"]
)
def test_an_interrupted_run_ends_as_one_that_was_not(bundles, number, method, workers, tmp_path):
    """Weights, optimizer, averages and every recorded loss, to the last bit; nothing half-written is left."""
    bundle, dice = bundles(NAME), random.Random(f"{method} {number}")
    whole = Training(bundle, method, tmp_path / "whole", workers)
    seconds = whole.finish()
    done, codes = 0, []
    while done < COUNT:
        run = Training(bundle, method, tmp_path / "parts", workers)
        for _ in range(2):
            clock = time.monotonic()
            codes.append(run.interrupt(number, dice.uniform(0.2, 1) * seconds, in_a_save=dice.random() < 0.4))
            done += codes[-1] != 0
            if codes[-1] == 0:  # it has become faster, as where other programs have ended
                seconds = time.monotonic() - clock
            if run.is_complete():
                break
        if not run.is_complete():
            run.finish()
        assert_same_files(whole.folder, run.folder, "models/model.pt", "checkpoint_last.pt")
        assert losses(whole.folder) == losses(run.folder)
        assert not list(run.folder.rglob(".tmp-*")) and not list(run.folder.rglob(".writable"))
        shutil.rmtree(run.folder)
    assert set(codes) <= ({0, -9} if number == signal.SIGKILL else {0, 143, -15}), codes
    print(f"{done} interruptions by {number.name}, exit codes {codes}")
