"""Train, evaluate and infer: every bundle in one process on NIfTI; in two processes and on DICOM one of each task."""

from __future__ import annotations

import json
import re
import sqlite3

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from tests.acceptance.conftest import ONE_PER_TASK, config_files
from tests.conftest import BUNDLES, ROLES, TASKS, read_json
from tests.dicom_series import DESCRIPTIONS, write_study

pytestmark = pytest.mark.slow
EVALUATE = ("train", "evaluate")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A DICOM study of four series on one oblique grid."""
    return write_study(tmp_path_factory.mktemp("dicom") / "study")


@pytest.fixture(scope="module")
def trained(bundle):
    """The bundle after a tracked training, and what the training printed."""
    before = (bundle.root / "models" / "model.pt").read_bytes()
    printed = bundle.monai(
        "run", "training", *config_files("train"), "--dataset_dir", bundle.data, "--tracking", "mlflow"
    )
    assert (bundle.root / "models" / "model.pt").read_bytes() != before
    return bundle, printed


@pytest.fixture(scope="module")
def count_threads(tmp_path_factory):
    """An overlay that prints which threads of Gloo are left at the end: those that could abort a process."""
    left = "[t for t in pathlib.Path('/proc/self/task').glob('*/comm') if 'gloo' in t.read_text()]"  # of Linux
    content = {"+imports": ["$import pathlib", "$import time"]}
    # an ended thread is listed a moment longer
    content["+finalize"] = ["$time.sleep(0.2)", f"$print('threads left:', {left})"]
    file = tmp_path_factory.mktemp("overlay") / "count_threads.json"
    file.write_text(json.dumps(content), "utf-8")
    return file


def test_training_is_tracked(trained):
    bundle, printed = trained
    with sqlite3.connect(bundle.root / "eval" / "mlruns.db") as database:
        names = {row[0] for row in database.execute("select distinct key from metrics")}
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert {"train_loss", "val_mean_dice"} <= names
    assert list((bundle.root / "eval").rglob("artifacts/config_*.json"))
    assert bool(re.search(r"kd_loss: \d", printed)) == bundle.name.endswith("_dcd")


@pytest.mark.parametrize("overlay", ["evaluate", "multi_gpu_train"])
@pytest.mark.parametrize("task", TASKS)
def test_the_roles_of_a_task_share_their_overlays(task, overlay):
    """Hence what follows is run with one bundle of each task."""
    files = [BUNDLES / f"{task}_segmentation_{role}" / "configs" / f"{overlay}.json" for role in ROLES]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("bundle", ONE_PER_TASK, indirect=True)
def test_two_processes_train_one_network(bundle, count_threads, tmp_path):
    """The default run id, under torchrun: one writes, and nothing of the wrapper is in the weights."""
    output = f"'{tmp_path}/' + os.environ['RANK']"  # each process would write into a folder of its own
    where = ["--dataset_dir", bundle.data, "--output_dir", f"${output}", "--ckpt_dir", f"${output} + '/models'"]
    files = config_files("train", "multi_gpu_train", count_threads)
    printed = bundle.monai("run", *files, *where, "--max_epochs", "1", processes=2)
    assert printed.count("threads left: []") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]
    state = torch.load(tmp_path / "0" / "models" / "model.pt", weights_only=True)
    expected = torch.load(bundle.root / "models" / "model.pt", weights_only=True)
    assert list(state) == list(expected)
    assert len(read_json(tmp_path / "0" / "training.json")["epochs"]) == 1


def dice(pred, truth, value):
    p, t = np.asarray(pred.dataobj) == value, np.asarray(truth.dataobj) == value
    return 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else None


@pytest.mark.parametrize("bundle", ONE_PER_TASK, indirect=True)
def test_two_processes_score_what_one_does(trained, count_threads, tmp_path):
    bundle, _ = trained
    results = []
    for processes, configs in ((0, EVALUATE), (2, (*EVALUATE, "multi_gpu_train", count_threads))):
        output = tmp_path / str(processes)
        where = ["--dataset_dir", bundle.data, "--output_dir", output]
        printed = bundle.monai("run", "evaluating", *config_files(*configs), *where, processes=processes)
        assert printed.count("threads left: []") == processes
        results.append(read_json(output / "metrics.json"))
    one, two = results
    assert list(one["cases"]) == list(two["cases"]) and len(one["cases"]) > 1
    assert all(one["cases"][case]["classes"] == two["cases"][case]["classes"] for case in one["cases"])
    assert one["summary"] == two["summary"] and one["weights_sha256"] == two["weights_sha256"]
    assert (tmp_path / "0" / "metrics.csv").read_bytes() == (tmp_path / "2" / "metrics.csv").read_bytes()
    labels = {c["case"]: c["label"] for c in read_json(bundle.data / "datalist.json")["training"]}
    expected = np.full((len(labels), len(one["class_names"])), np.nan)
    for row, (case, entry) in enumerate(one["cases"].items()):  # NumPy on the files
        truth = nib.load(bundle.data / labels[case])
        pred = nib.load(tmp_path / "0" / "predictions" / f"{case}.nii.gz")
        for value, name in enumerate(one["class_names"], start=1):
            found = dice(pred, truth, value)
            assert entry["classes"][name]["dice"] == pytest.approx(found, abs=1e-6)
            expected[row, value - 1] = np.nan if found is None else found
    expected = expected[~np.isnan(expected).all(1)]
    assert one["summary"]["mean"]["dice"]["mean"] == pytest.approx(np.nanmean(expected, 1).mean(), abs=1e-6)


def test_inference_is_on_the_image_s_grid(trained, tmp_path):
    bundle, _ = trained
    where = ["--dataset_dir", bundle.data, "--output_dir", tmp_path]
    bundle.monai("run", "inference", *config_files("inference"), *where)
    entry = read_json(bundle.data / "datalist.json")["test"][0]["image"]
    image = nib.load(bundle.data / (entry[0] if isinstance(entry, list) else entry))
    [file] = tmp_path.rglob("*_seg.nii.gz")
    label_map = nib.load(file)
    assert label_map.shape == image.shape and label_map.get_data_dtype() == np.uint8
    np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-4)
    classes = len(bundle.config("train")["class_names"])
    assert set(np.unique(np.asarray(label_map.dataobj))) <= set(range(classes + 1))


@pytest.mark.parametrize("bundle", ONE_PER_TASK, indirect=True)
def test_folders_of_dicom_are_images_too_and_any_directory_will_do(bundle, study, tmp_path):
    """From another directory; one folder per channel. The label map lies where ITK says that the slices are."""
    series = list(DESCRIPTIONS)[: bundle.config("inference")["in_channels"]]
    images = series if len(series) > 1 else series[0]
    where = [
        "--bundle_root",
        bundle.root,
        "--dataset_dir",
        study,
        "--output_dir",
        tmp_path,
        "--datalist",
        str([images]),
    ]
    # coarse, so that few windows cover it
    files = config_files("inference", root=bundle.root)
    bundle.monai("run", "inference", *files, *where, "--pixdim", "[4.0,4.0,4.0]", cwd="/")
    [file] = tmp_path.rglob("*_seg.nii.gz")
    image, label_map = LoadImage()(study / series[0]), nib.load(file)
    assert file.name == f"{series[0]}_seg.nii.gz" and label_map.shape == tuple(image.shape)
    np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-4)
    assert len(np.unique(np.asarray(label_map.dataobj))) > 1


@pytest.mark.parametrize("task", TASKS)
def test_without_its_teacher_a_distilled_student_does_not_train(bundles, task, tmp_path):
    bundle = bundles(f"{task}_segmentation_student_dcd")
    where = ["--dataset_dir", bundle.data, "--output_dir", tmp_path, "--teacher_ckpt", "nowhere/model.pt"]
    printed = bundle.monai("run", "training", *config_files("train"), *where, code=1)
    assert printed.strip().splitlines()[-1] == (
        "error: weights not found – nowhere/model.pt – expected a checkpoint, found no such file – "
        "train the teacher bundle first, or pass --teacher_ckpt <its models/model.pt>"
    )
