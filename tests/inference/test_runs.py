"""Cohorts in which a case fails, through the shipped configs; the network is a 1×1×1 convolution."""

from __future__ import annotations

import json
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from dcd_ext.errors import first_cause
from tests.conftest import BUNDLES, make_workflow, read_json
from tests.processes import fork_module

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")
NAME = "hippocampus_segmentation_student"
NETWORK = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 3, "kernel_size": 1}
IMAGE = np.random.default_rng(0).normal(100, 20, (9, 8, 7)).astype(np.float32)


@pytest.fixture
def settings(tmp_path):
    """Options of every run here."""
    torch.save(torch.nn.Conv3d(1, 3, 1).state_dict(), tmp_path / "model.pt")
    return {"ckpt_path": str(tmp_path / "model.pt"), "network_def": NETWORK, "patch_size": [8, 8, 8]}


@pytest.fixture
def folder(tmp_path):
    """Three good images of a kind each, and four bad ones."""
    root = tmp_path / "in"
    root.mkdir()
    nib.save(nib.Nifti1Image(IMAGE, np.eye(4)), root / "a.nii")
    nib.save(nib.MGHImage(IMAGE, np.eye(4)), root / "d.mgz")
    nib.save(nib.Nifti1Image(IMAGE, np.eye(4)), root / "1.2.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([IMAGE] * 4, -1), np.eye(4)), root / "four.nii.gz")
    nib.save(nib.Nifti1Image(IMAGE[..., 0], np.eye(4)), root / "flat.nii")
    (root / "cut.nii.gz").write_bytes((root / "1.2.nii.gz").read_bytes()[:400])
    (root / "gone.nii").symlink_to("nowhere")
    return root


def infer(**override):
    make_workflow(NAME, "inference", kind="infer", **override).run()


def written(folder):
    return sorted(path.name for path in folder.rglob("*_seg.nii.gz"))


# ignite logs the error before it is raised
@pytest.mark.filterwarnings("ignore")
def test_bad_cases_are_listed_and_the_others_segmented(folder, settings, tmp_path, caplog):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError) as caught:
        infer(**settings, dataset_dir=str(folder), output_dir=str(out))
    assert re.search("4 of 7 cases failed – .*failed_cases.json", str(first_cause(caught.value)))
    assert written(out) == ["1.2_seg.nii.gz", "a_seg.nii.gz", "d_seg.nii.gz"]
    reasons = read_json(out / "failed_cases.json")
    for case, text in (
        ("cut", "cut.nii.gz – (EOFError|ImageFileError)"),
        ("flat", "no volume – .*flat.nii"),
        ("four", "wrong number of channels – .*four.nii.gz – expected 1, found 4"),
        ("gone", "image not found – .*gone.nii"),
    ):
        assert re.search(text, reasons[case]) and "\n" not in reasons[case]
        assert sum(f"case {case} failed – {reasons[case]}" in record.getMessage() for record in caplog.records) == 1
    for name in ("cut.nii.gz", "flat.nii", "four.nii.gz", "gone.nii"):
        (folder / name).unlink()
    infer(**settings, dataset_dir=str(folder), output_dir=str(out))
    assert not (out / "failed_cases.json").exists()


def test_the_broken_channel_is_the_one_that_is_named(folder, settings, tmp_path):
    settings |= {"network_def": {**NETWORK, "in_channels": 2}, "in_channels": 2}
    torch.save(torch.nn.Conv3d(2, 3, 1).state_dict(), tmp_path / "model.pt")
    images = [["a.nii", "a.nii"], ["1.2.nii.gz", "cut.nii.gz"]]
    with pytest.raises(RuntimeError):
        infer(**settings, dataset_dir=str(folder), output_dir=str(tmp_path / "out"), datalist=images)
    assert written(tmp_path / "out") == ["a_seg.nii.gz"]
    assert re.match(
        r"\S*/cut.nii.gz – (EOFError|ImageFileError)", read_json(tmp_path / "out" / "failed_cases.json")["1.2"]
    )


@pytest.fixture
def elsewhere(folder, tmp_path):
    """A user's directory: it has a package ``scripts`` of its own, a ``dcd_ext`` that cannot be imported, and data."""
    root = tmp_path / "elsewhere"
    for package in ("scripts", "dcd_ext"):
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").write_text("raise ImportError(__name__)")
    for patient in ("p7", "p9"):
        (root / "study [7], ü" / patient).mkdir(parents=True)
        shutil.copy(folder / "a.nii", root / "study [7], ü" / patient / "t1.nii")
    return root


def command(cwd, settings, *options, **environment):
    bundle = BUNDLES / NAME
    words = ["run", "inference", "--bundle_root", bundle, "--config_file", bundle / "configs" / "inference.json"]
    for name, value in settings.items():
        words += [f"--{name}", value]
    return fork_module("monai.bundle", [*words, *options], cwd, environment)


def test_a_relative_folder_from_a_directory_with_packages_of_the_same_names(elsewhere, settings):
    """The bundle brings what it needs, and reaches it whatever else is called ``scripts``."""
    result = command(elsewhere, settings, "--dataset_dir", "study [7], ü", "--output_dir", "./20,24")
    assert result.returncode == 0, result.stderr
    assert written(elsewhere / "20,24") == ["p7_seg.nii.gz", "p9_seg.nii.gz"]


def test_a_number_sign_ends_with_one_line_before_work(elsewhere, settings):
    result = command(elsewhere, settings, "--dataset_dir", "study [7], ü", "--output_dir", "run#2")
    assert result.returncode == 1 and not list(elsewhere.glob("run*"))
    assert result.stderr.splitlines()[-1].startswith("error: '#' in a path") and "Traceback" not in result.stderr


def test_two_processes_share_a_cohort_and_both_end(folder, settings, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    options = ["--dataset_dir", folder, "--output_dir", tmp_path / "out"]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(command, tmp_path, settings, *options, **environment, RANK=str(r)) for r in range(2)]
    for run in runs:
        assert run.result().returncode == 1
        assert "error: 4 of 7 cases failed" in run.result().stderr.splitlines()[-1]
    assert len(written(tmp_path / "out")) == 3 and len(read_json(tmp_path / "out" / "failed_cases.json")) == 4


@pytest.mark.filterwarnings("ignore")
def test_evaluation_scores_the_good_cases_and_lists_the_others(settings, tmp_path):
    entries = []
    for i in range(4):
        (tmp_path / f"p{i}").mkdir()
        for key, data in (("image", IMAGE), ("label", (IMAGE > 100).astype(np.uint8))):
            nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"p{i}" / f"{key}.nii.gz")
        entry = {key: f"p{i}/{key}.nii.gz" for key in ("image", "label")}
        entries.append({**entry, "case": f"p{i}", "subject": f"p{i}", "fold": i % 2})
    (tmp_path / "datalist.json").write_text(json.dumps({"training": entries, "test": []}))
    for broken in ("p1/image.nii.gz", "p2/label.nii.gz"):
        (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:60])
    options = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "fold": "all", "num_workers": 0}
    workflow = make_workflow(NAME, "train", "evaluate", **settings, **options, save_predictions=False)
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert re.search("2 of 4 cases failed – .* – the first one, p1: .*p1/image.nii.gz", str(first_cause(caught.value)))
    metrics = read_json(Path(tmp_path, "metrics.json"))
    assert list(metrics["cases"]) == ["p0", "p3"] and list(metrics["failed"]) == ["p1", "p2"]
    assert "p2/label.nii.gz" in metrics["failed"]["p2"]
