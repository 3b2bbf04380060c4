"""The documented commands as a user types them: separate processes, other working directories."""

import os
import sqlite3
import subprocess
import sys

import pytest
import torch

from tests.conftest import BUNDLES, ROOT, SHORT, SMALL, read_json
from tests.processes import fork_module

pytestmark = pytest.mark.slow
SETTINGS = {**SMALL["hippocampus"], **SHORT}


def options(**values):
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


def monai_run(run_id, name, *configs, cwd=ROOT, **override):
    """``python -m monai.bundle run`` as in the README."""
    folder = BUNDLES / name
    files = [str(folder / "configs" / f"{c}.json") for c in configs]
    arguments = ["run", run_id, "--bundle_root", folder]
    arguments += ["--config_file", files if len(files) > 1 else files[0], *options(**override)]
    return fork_module("monai.bundle", arguments, cwd, {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def where(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    return {
        "dataset_dir": prepared("hippocampus"),
        "output_dir": folder,
        "ckpt_dir": folder / "models",
    }


def test_train_with_mlflow_then_evaluate_and_infer_from_another_directory(where, tmp_path):
    name, root = "hippocampus_segmentation_student", where["output_dir"]
    result = monai_run("training", name, "train", cwd=tmp_path, tracking="mlflow", **where, **SETTINGS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "val_mean_dice" in result.stdout and (root / "models" / "model.pt").is_file()
    with sqlite3.connect(root / "mlruns.db") as database:
        names = {row[0] for row in database.execute("select distinct key from metrics")}
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert {"train_loss", "loss", "val_mean_dice"} <= names

    result = monai_run("evaluating", name, "train", "evaluate", cwd="/", **where, **SMALL["hippocampus"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert read_json(root / "metrics.json")["fold"] == 0

    weights = root / "models" / "model.pt"
    inference = {"dataset_dir": where["dataset_dir"], "output_dir": tmp_path / "out", "ckpt_path": weights}
    result = monai_run("inference", name, "inference", cwd="/", **inference, **SMALL["hippocampus"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert list((tmp_path / "out").rglob("*_seg.nii.gz"))


def test_inference_needs_nothing_of_ours(where, tmp_path):
    """A student copied away alone runs where ``dcd_ext`` cannot be imported."""
    import shutil

    name = "hippocampus_segmentation_student_dcd"
    shutil.copytree(BUNDLES / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pt", "eval"))
    from monai.bundle import ConfigParser

    config = {**read_json(tmp_path / name / "configs" / "inference.json"), **SMALL["hippocampus"]}
    network = ConfigParser(config).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / name / "models" / "model.pt")
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "dcd_ext.py").write_text("raise ImportError('dcd_ext is not installed here')")
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.json"]
    command += options(dataset_dir=where["dataset_dir"], output_dir=tmp_path / "out", **SMALL["hippocampus"])
    environment = {**os.environ, "PYTHONPATH": str(blocker), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path / name, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert list((tmp_path / "out").rglob("*_seg.nii.gz"))


def test_a_user_error_is_the_last_line(where):
    result = monai_run("training", "hippocampus_segmentation_student", "train", learning_rat=3, **where)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: unknown config key – ") and "found 'learning_rat'" in last
