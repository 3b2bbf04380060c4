"""A benchmark whose processes are all killed at random moments, and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.commands.main import main as dcd
from dcd_ext.io import write_json
from tests.conftest import BUNDLES, LAYOUTS, PHANTOMS, SHORT, SMALL, read_json
from tests.integration.conftest import slow_alone

pytestmark = [pytest.mark.integration, slow_alone]
KILLED = 5


def make_suite(folder: Path) -> Path:
    """A suite of two methods with toy networks, a given teacher, and data of three parts."""
    source, data = folder / "source", folder / "prepared"
    phantoms = ["--cases", "8", "--test_cases", "0", "--layout", LAYOUTS["hippocampus"], *PHANTOMS["hippocampus"]]
    assert dcd(["phantoms", "--output", str(source), *phantoms, "--jobs", "1"]) == 0
    assert dcd(["prepare", "hippocampus", "--source", str(source), "--output", str(data), "--test_fold", "1"]) == 0
    bundles = str(BUNDLES / "hippocampus_segmentation_{role}")
    small = SMALL["hippocampus"]
    config = {**read_json(Path(bundles.format(role="teacher"), "configs", "inference.json")), **small}
    torch.manual_seed(0)
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), folder / "teacher.pt")
    suite = {"bundles": bundles, "dataset_dir": str(data), "fold": 0, "score": ["selection", "test"]}
    suite |= {"options": {**small, **SHORT}, "teacher_ckpt": str(folder / "teacher.pt"), "teacher_seed": 1}
    suite |= {"seeds": [1], "students": {"r4": {}}, "methods": {"plain": {"role": "student"}, "dcd": {}}}
    write_json(suite, folder / "suite.json")
    return folder / "suite.json"


def start(suite: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "dcd_ext", "benchmark", str(suite), "--output", str(output), "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with output.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def finish(suite: Path, output: Path) -> None:
    assert start(suite, output).wait() == 0, output.with_suffix(".log").read_text("utf-8")


def scores(output: Path) -> dict[str, dict]:
    """Every number of the tables."""
    files = {str(file.relative_to(output)): read_json(file)["cases"] for file in sorted(output.rglob("metrics.json"))}
    for cases in files.values():
        for case in cases.values():
            del case["seconds"]
    return files


def test_a_benchmark_killed_five_times_ends_with_the_same_table(tmp_path: Path) -> None:
    suite = make_suite(tmp_path)
    clock = time.monotonic()
    finish(suite, tmp_path / "undisturbed")
    seconds, rng = time.monotonic() - clock, random.Random()
    moments = [rng.uniform(0.1, 0.9) * seconds / 2 for _ in range(KILLED)]
    print("killed after", np.round(moments, 1), "of", round(seconds, 1), "s")
    for moment in moments:
        process = start(suite, tmp_path / "killed")
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finish(suite, tmp_path / "killed")
    (tmp_path / "killed" / "r4" / "dcd" / "seed1" / "models" / "trained").unlink()  # killed after its last epoch
    finish(suite, tmp_path / "killed")
    assert scores(tmp_path / "killed") == scores(tmp_path / "undisturbed")
    assert len(scores(tmp_path / "killed")) == 6  # a teacher and two students, two parts each
    pages = [(tmp_path / name / "r4_test.md").read_text("utf-8") for name in ("killed", "undisturbed")]
    tables = [page.partition("### Cost")[0] for page in pages]  # what follows are seconds
    assert tables[0] == tables[1] and "| dcd |" in tables[0]
