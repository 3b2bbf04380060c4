"""A disk that is really full: a small file system in memory, where this user may mount one."""

from __future__ import annotations

import subprocess

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.handlers.run import Run
from dcd_ext.io import write_json
from dcd_ext.weights import save_checkpoint, save_weights
from tests.conftest import read_json


@pytest.fixture
def disk(tmp_path):
    """A folder that takes 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Leave nothing."""
    with pytest.raises(OSError, match="No space left"), open(folder / "other", "wb", buffering=0) as file:
        while True:
            file.write(bytes(2**12))


@pytest.mark.parametrize("left", ["a part", "nothing"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: save_checkpoint({"epoch": 2, "weights": torch.zeros(2**20)}, path),
        lambda path: save_weights({"weights": torch.zeros(2**20)}, path, {}),
        lambda path: write_json({"epochs": ["x" * 2**22]}, path),
    ],
    ids=["checkpoint", "weights", "json"],
)
def test_the_older_file_survives_a_full_disk(write, left, disk):
    path = disk / "checkpoint_last.pt"
    save_checkpoint({"epoch": 1, "weights": torch.ones(2**18)}, path)
    before = path.read_bytes()
    if left == "nothing":
        fill(disk)
    with pytest.raises(UserError, match=f"cannot write the file – {path} .*found No space left on device") as error:
        write(path)
    assert len(str(error.value).splitlines()) == 1
    assert path.read_bytes() == before and torch.load(path, weights_only=True)["epoch"] == 1
    assert {file.name for file in disk.iterdir()} <= {path.name, "other"}


def test_a_full_disk_is_refused_before_the_first_batch_and_taken_when_there_is_space(disk):
    fill(disk)
    with pytest.raises(UserError, match="found No space left on device"):
        Run().claim(str(disk), str(disk))
    (disk / "other").unlink()
    run = Run()
    run.claim(str(disk), str(disk))
    run.release()
    write_json({"epoch": 1}, disk / "training.json")
    assert read_json(disk / "training.json") == {"epoch": 1}
