"""A cohort with damaged cases, killed and resumed: whole commands, as a user starts them.

``DCD_PREDICT_CASES=200 pytest tests/predict/test_interruptions.py`` does it with 200 cases.
"""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dcd_ext.predict.standalone import write_standalone
from tests.bundles.conftest import NAME, make_small
from tests.conftest import ROOT, read_json

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
COUNT = int(os.environ.get("DCD_PREDICT_CASES", 24))
DAMAGED = ("cut", "flipped bit", "empty", "no image", "infinite")


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Path:
    """A network as a standalone folder, which starts in a second."""
    folder = tmp_path_factory.mktemp("app")
    return write_standalone(make_small(NAME, folder), folder / "app")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder, random_voxels = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        data = random_voxels.normal(100, 20, (36, 30, 40)).astype(np.float32)
        nib.save(nib.Nifti1Image(data, np.diag([1.1, -0.9, 1, 1])), folder / f"case_{number:03}.nii.gz")
    for position, kind in enumerate(DAMAGED):
        number = (position + 1) * COUNT // (len(DAMAGED) + 1) + position % 2  # some in each shard
        damage(folder / f"case_{number:03}.nii.gz", kind)
    return folder


def damage(file: Path, kind: str) -> None:
    whole = file.read_bytes()
    if kind == "infinite":
        data = nib.load(file).get_fdata()
        data[5, 6, 7] = np.inf
        nib.save(nib.Nifti1Image(data, np.eye(4)), file)
        return
    flipped = bytearray(whole)
    flipped[-len(whole) // 3] ^= 16
    contents = {
        "cut": whole[: len(whole) // 2],
        "flipped bit": bytes(flipped),
        "empty": b"",
        "no image": gzip.compress(b"<html>moved</html>"),
    }
    file.write_bytes(contents[kind])


def start(app: Path, images: Path, output: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dcd_ext", "predict", str(app), str(images), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, "--threads", "1", *options], env=environment, stderr=subprocess.PIPE)


def masks(output: Path) -> dict[str, bytes]:
    """Every file of the folder that could be taken for a label map, hidden ones too."""
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.nii.gz"))}


@pytest.fixture(scope="module")
def undisturbed(app, images, tmp_path_factory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    process = start(app, images, output)
    process.communicate()
    assert process.returncode == 1
    return masks(output)


def test_killed_twice_and_resumed(app, images, undisturbed, tmp_path) -> None:
    chance, done = random.Random(3), 0
    for _ in range(2):
        process, enough = start(app, images, tmp_path), done + chance.randint(1, COUNT // 4)
        while process.poll() is None and len(list(tmp_path.glob("case_*.nii.gz"))) < enough:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        done = len(list(tmp_path.glob("case_*.nii.gz")))
        assert done < COUNT - len(DAMAGED)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("case_*.nii.gz")}
    process = start(app, images, tmp_path)
    process.communicate()
    assert process.returncode == 1
    assert len(undisturbed) == COUNT - len(DAMAGED) and masks(tmp_path) == undisturbed
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in written} == written  # each was made once
    summary = read_json(tmp_path / "summary.json")
    reasons = [case["error"] for case in summary["cases"] if case["error"]]
    assert (summary["segmented"], summary["failed"], len(reasons)) == (COUNT - len(DAMAGED), len(DAMAGED), 5)
    assert all(str(images) in reason and "\n" not in reason for reason in reasons)


def test_shards_write_the_bytes_of_one_process(app, images, undisturbed, tmp_path) -> None:
    shards = [start(app, images, tmp_path, "--shard", f"{part}/2") for part in (1, 2)]
    assert [shard.communicate() and shard.returncode for shard in shards] == [1, 1]
    assert masks(tmp_path) == undisturbed
    assert read_json(tmp_path / "summary.json")["failed"] == len(DAMAGED)
