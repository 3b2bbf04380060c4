"""The wheel, installed into a new environment, is all that a user needs: from data to a report, outside the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.test_add_a_task import documented_task
from tests.conftest import ROOT, read_json

SMALL = {"features": [8] * 6, "n_blocks": [1] * 6, "patch_size": [64, 64, 8], "pixdim": [0.5, 0.5, 3.0]}
SHORT = {"max_epochs": 2, "iterations_per_epoch": 1, "val_interval": 1, "num_workers": 0, "batch_size": 1}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Built from the source archive; ``./runtests.sh`` has twine check both."""
    source = tmp_path / "source"
    for name in ("dcd_ext", "bundle_src"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "requirements.txt",
    ):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = (tmp_path / "dist").glob("*.whl")
    return file


class Environment:
    """An environment with the wheel and, by a link, the libraries of this one."""

    def __init__(self, root: Path, wheel: Path, folder: Path) -> None:
        venv.create(root, with_pip=False)
        self.python, self.folder = root / "bin" / "python", folder
        (libraries,) = root.glob("lib/python*/site-packages")
        # the editable install of the clone stays invisible: .pth files of a linked folder are not read
        (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib"))
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--quiet", "--ignore-installed", "--disable-pip-version-check", str(wheel)], check=True)

    def __call__(self, program: str, *arguments: object) -> str:
        """Run ``dcd`` or ``python`` in the folder; returns what it printed."""
        command = [str(self.python.with_name(program)), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def monai(self, run_id: str, role: str, *configs: str, **options: object) -> None:
        """``python -m monai.bundle run`` with a bundle of the documented task."""
        bundle = f"bundles/prostate_segmentation_{role}"
        files = str([f"{bundle}/configs/{name}.json" for name in configs])
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        where = ["--bundle_root", bundle, "--config_file", files, "--dataset_dir", "prepared"]
        self("python", "-m", "monai.bundle", "run", run_id, *where, *words)


def _as_prostate(folder: Path) -> None:
    """Two sequences in one 4D file, thin in plane and thick across, as the Decathlon stores them."""
    for path in [*folder.glob("images*/*.nii.gz"), *folder.glob("labels*/*.nii.gz")]:
        voxels = np.asarray(nib.load(path).dataobj)[:, :, ::2]
        pair = voxels if "labels" in path.parent.name else np.stack([voxels, voxels[::-1]], -1)
        nib.save(nib.Nifti1Image(pair, np.diag([0.5, 0.5, 3, 1])), path)
    index = read_json(folder / "dataset.json")
    index.update(name="PROSTATE", modality={"0": "T2", "1": "ADC"})
    index["labels"] = {"0": "background", "1": "PZ", "2": "TZ"}
    (folder / "dataset.json").write_text(json.dumps(index))


@pytest.mark.slow
def test_from_data_to_report_with_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run = Environment(tmp_path / "venv", wheel, folder)
    assert str(tmp_path / "venv") in run("python", "-c", "import dcd_ext; print(dcd_ext.__file__)")
    shape = ("--shape", 72, 72, 24)
    run("dcd", "phantoms", "--layout", "msd", "--output", "Task05_Prostate", "--cases", 2, "--test_cases", 1, *shape)
    _as_prostate(folder / "Task05_Prostate")
    run("dcd", "prepare", "msd", "--source", "Task05_Prostate", "--output", "prepared")
    (folder / "prostate.json").write_text(documented_task(), "utf-8")
    run("dcd", "build", "prostate.json", "--output", "bundles")
    metadata = "bundles/prostate_segmentation_student/configs/metadata.json"
    assert "0 errors" in run("dcd", "check", "prepared", "--task", metadata)
    # a teacher's configs are the student's but for the width: weights as if it had been trained
    teacher = read_json(folder / "bundles/prostate_segmentation_teacher/configs/inference.json") | SMALL
    torch.save(ConfigParser(teacher).get_parsed_content("network_def").state_dict(), folder / "teacher.pt")
    where = {"output_dir": "runs/student_dcd", "ckpt_dir": "runs/student_dcd/models", **SMALL}
    run.monai("training", "student_dcd", "train", **where, **SHORT, teacher_ckpt="teacher.pt")
    run.monai("evaluating", "student_dcd", "train", "evaluate", **where, teacher_ckpt="teacher.pt")
    shutil.copytree(folder / "runs" / "student_dcd", folder / "runs" / "again")
    assert "mean of classes" in run("dcd", "compare", "runs/again", "runs/student_dcd", "--output", "report.html")
    assert (folder / "report.html").stat().st_size > 10_000
    weights = {"ckpt_path": "runs/student_dcd/models/model.pt", "output_dir": "predictions"}
    run.monai("inference", "student_dcd", "inference", **weights, **SMALL)
    (path,) = (folder / "predictions").rglob("*_seg.nii.gz")
    image, prediction = nib.load(next((folder / "Task05_Prostate" / "imagesTs").iterdir())), nib.load(path)
    assert prediction.shape == image.shape[:3]
    np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-4)
