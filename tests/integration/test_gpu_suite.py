"""The suite for a GPU, its parts at small sizes on the CPU: minutes that would be missed on a lent device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, read_json
from tests.integration.conftest import slow_alone

pytestmark = [pytest.mark.integration, slow_alone]
PARTS = ["tests", "loss", "step", "widths", "widths_monai", "benchmark"]


def test_every_part_of_the_gpu_suite_runs(tmp_path: Path) -> None:
    command = [str(ROOT / "scripts" / "gpu_suite.sh"), str(tmp_path), "--tiny"]
    environment = {**os.environ, "PYTHON": sys.executable}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3000)
    logs = "\n".join(log.read_text("utf-8")[-2000:] for log in sorted(tmp_path.glob("*.log")))
    assert result.returncode == 0, result.stdout + logs
    assert [read_json(tmp_path / f"{part}.json")["exit_code"] for part in PARTS] == [0] * len(PARTS)
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert [line for line in again.stdout.splitlines() if "done before" in line] == [f"{p}: done before" for p in PARTS]
