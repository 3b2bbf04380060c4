"""Memory and open files do not grow with what was trained or segmented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.acceptance.conftest import config_files

# minutes
pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(os.environ.get("DCD_INTEGRATION") != "1", reason="minutes long: --integration"),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc"),
]
NAME = "hippocampus_segmentation_student_dcd"
USED = "(int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20, len(os.listdir('/proc/self/fd')))"
PREDICT = f"""
import os, sys
from dcd_ext.predict import Predictor
predictor = Predictor(sys.argv[1], backend=sys.argv[3])
for number in range(1, 201):
    predictor([sys.argv[2]])
    print("used:", *{USED})
"""


def assert_flat(printed: str, steps: int) -> None:
    """
    Of lines «used: MiB files», one per step, the last fifty and the fifty that end at a third: their medians, as the
    memory in use swings by 5 % from step to step.
    """
    memory, files = zip(*(map(float, used) for used in re.findall(r"used: ([\d.]+) (\d+)", printed)), strict=True)
    assert len(memory) == steps
    early, late = slice(steps // 3 - 50, steps // 3), slice(-50, None)
    assert median(memory[late]) < median(memory[early]) * 1.03 + 5, (memory[early], memory[late])
    assert max(files[late]) <= max(files[early])


def test_300_training_iterations(bundles, tmp_path):
    bundle = bundles(NAME)
    tell = f"$lambda engine: print('used:', *{USED})"
    content = {
        "tell": tell,
        "training": [
            "$@train::this_run.claim(@output_dir, @ckpt_dir, @resume)",
            "$@train::trainer.add_event_handler(ignite.engine.Events.ITERATION_COMPLETED, @tell)",
            "$@train::trainer.run()",
        ],
    }
    overlay = tmp_path / "tell.json"
    overlay.write_text(json.dumps(content), "utf-8")
    where = ["--dataset_dir", bundle.data, "--output_dir", tmp_path, "--ckpt_dir", tmp_path, "--extra_keys", "['tell']"]
    size = ["--max_epochs", 3, "--iterations_per_epoch", 100, "--batch_size", 1, "--val_interval", 3]
    assert_flat(bundle.monai("run", "training", *config_files("train", overlay), *where, *size), steps=300)


@pytest.mark.parametrize("backend", ["eager", "openvino", "onnxruntime"])
def test_200_predictions(bundles, backend):
    bundle = bundles(NAME)
    image = next(iter(sorted(bundle.data.parent.rglob("*.nii.gz"))))
    command = [sys.executable, "-c", PREDICT, bundle.root, image, backend]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    assert_flat(result.stdout, steps=200)
