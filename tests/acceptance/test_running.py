"""Train, evaluate and infer with bundles: one process and two, NIfTI and DICOM, in their folders and elsewhere."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from tests.acceptance.conftest import DISTILLED, config_files
from tests.conftest import read_json
from tests.dicom_series import DESCRIPTIONS, write_study

pytestmark = pytest.mark.slow
EVALUATE = ("train", "evaluate")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A DICOM study of four series on one oblique grid."""
    return write_study(tmp_path_factory.mktemp("dicom") / "study")


@pytest.fixture(scope="module", params=DISTILLED)
def distilled(request, bundles):
    """Whatever infers differently."""
    return bundles(request.param)


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
    # an ended thread is listed a moment longer; one write per line, for torchrun's processes share an unbuffered pipe
    content["+finalize"] = ["$time.sleep(0.2)", f"$print('threads left: ' + str({left}) + chr(10), end='')"]
    file = tmp_path_factory.mktemp("overlay") / "count_threads.json"
    file.write_text(json.dumps(content), "utf-8")
    return file


def threads_left(printed):
    return re.findall(r"threads left: (\[.*?\])", printed)


def test_training_is_tracked(trained):
    bundle, printed = trained
    with sqlite3.connect(bundle.root / "eval" / "mlruns.db") as database:
        names = {row[0] for row in database.execute("select distinct key from metrics")}
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert {"train_loss", "loss", "val_mean_dice"} <= names and "val_mean_dice" in printed
    assert list((bundle.root / "eval").rglob("artifacts/config_*.json"))
    assert bool(re.search(r"kd_loss: \d", printed)) == bundle.name.endswith("_dcd")


def test_two_processes_train_one_network(bundles, count_threads, tmp_path):
    """The default run id, under torchrun: one writes, and nothing of the wrapper is in the weights."""
    bundle = bundles(DISTILLED[0])
    output = f"'{tmp_path}/' + os.environ['RANK']"  # each process would write into a folder of its own
    where = ["--dataset_dir", bundle.data, "--output_dir", f"${output}", "--ckpt_dir", f"${output} + '/models'"]
    files = config_files("train", "multi_gpu_train", count_threads)
    printed = bundle.monai("run", *files, *where, "--max_epochs", "1", processes=2)
    assert threads_left(printed) == ["[]"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]
    state = torch.load(tmp_path / "0" / "models" / "model.pt", weights_only=True)
    expected = torch.load(bundle.root / "models" / "model.pt", weights_only=True)
    assert list(state) == list(expected)
    assert len(read_json(tmp_path / "0" / "training.json")["epochs"]) == 1


def dice(pred, truth, value):
    p, t = np.asarray(pred.dataobj) == value, np.asarray(truth.dataobj) == value
    return 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else None


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """The trained bundle, and the folder into which it was evaluated, from another directory."""
    bundle, _ = trained
    output = tmp_path_factory.mktemp("evaluated")
    where = ["--bundle_root", bundle.root, "--dataset_dir", bundle.data, "--output_dir", output]
    bundle.monai("run", "evaluating", *config_files(*EVALUATE, root=bundle.root), *where, cwd="/")
    return bundle, output


def test_evaluation_scores_the_files_it_keeps(evaluated):
    """Against NumPy on the files."""
    bundle, output = evaluated
    scored = read_json(output / "metrics.json")
    labels = {c["case"]: c["label"] for c in read_json(bundle.data / "datalist.json")["training"]}
    expected = np.full((len(scored["cases"]), len(scored["class_names"])), np.nan)
    for row, (case, entry) in enumerate(scored["cases"].items()):
        truth = nib.load(bundle.data / labels[case])
        pred = nib.load(output / "predictions" / f"{case}.nii.gz")
        for value, name in enumerate(scored["class_names"], start=1):
            found = dice(pred, truth, value)
            assert entry["classes"][name]["dice"] == pytest.approx(found, abs=1e-6)
            expected[row, value - 1] = np.nan if found is None else found
    expected = expected[~np.isnan(expected).all(1)]
    assert scored["summary"]["mean"]["dice"]["mean"] == pytest.approx(np.nanmean(expected, 1).mean(), abs=1e-6)


def test_two_processes_score_what_one_does(bundles, count_threads, tmp_path):
    bundle, results = bundles(DISTILLED[0]), []
    for processes, configs in ((0, EVALUATE), (2, (*EVALUATE, "multi_gpu_train", count_threads))):
        output = tmp_path / str(processes)
        where = ["--dataset_dir", bundle.data, "--output_dir", output]
        printed = bundle.monai("run", "evaluating", *config_files(*configs), *where, processes=processes)
        assert threads_left(printed) == ["[]"] * processes
        results.append(read_json(output / "metrics.json"))
    one, two = results
    assert list(one["cases"]) == list(two["cases"]) and len(one["cases"]) > 1
    assert all(one["cases"][case]["classes"] == two["cases"][case]["classes"] for case in one["cases"])
    assert one["summary"] == two["summary"] and one["weights_sha256"] == two["weights_sha256"]
    assert (tmp_path / "0" / "metrics.csv").read_bytes() == (tmp_path / "2" / "metrics.csv").read_bytes()


def test_inference_is_on_the_image_s_grid_and_what_evaluation_scored(evaluated, tmp_path):
    """A test case and a held-out case, whose label map evaluation has scored and kept; from another directory."""
    bundle, output = evaluated
    where = ["--bundle_root", bundle.root, "--dataset_dir", bundle.data, "--output_dir", tmp_path]
    content = read_json(bundle.data / "datalist.json")
    held_out = next(case for case in content["training"] if case["fold"] == 0)
    entries = [content["test"][0]["image"], held_out["image"]]
    images = [[str(bundle.data / f) for f in ([e] if isinstance(e, str) else e)] for e in entries]
    files = config_files("inference", root=bundle.root)
    bundle.monai("run", "inference", *files, *where, "--datalist", str(images), cwd="/")
    classes = len(bundle.config("evaluate")["class_names"])
    maps = [nib.load(*tmp_path.rglob(f"{Path(i[0]).name.partition('.')[0]}_seg.nii.gz")) for i in images]
    for files, label_map in zip(images, maps, strict=True):
        image = nib.load(files[0])
        assert label_map.shape == image.shape and label_map.get_data_dtype() == np.uint8
        np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-4)
        assert set(np.unique(np.asarray(label_map.dataobj))) <= set(range(classes + 1))
    scored = nib.load(output / "predictions" / f"{held_out['case']}.nii.gz")
    assert np.array_equal(np.asarray(maps[1].dataobj), np.asarray(scored.dataobj))


def test_folders_of_dicom_are_images_too_and_any_directory_will_do(distilled, study, tmp_path):
    """From another directory; one folder per channel. The label map lies where ITK says that the slices are."""
    bundle = distilled
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


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ["--teacher_ckpt", "nowhere/model.pt"],
            "error: weights not found – nowhere/model.pt – expected a checkpoint, found no such file – "
            "train the teacher bundle first, or pass --teacher_ckpt <its models/model.pt>",
        ),
        (
            ["--learning_rat", "3"],
            "error: unknown config key – command line or config file – expected 'learning_rate', found 'learning_rat' "
            "– correct it, or pass --extra_keys \"['learning_rat']\" if you mean it",
        ),
    ],
)
def test_a_user_error_is_the_last_line(bundles, option, message, tmp_path):
    bundle = bundles("hippocampus_segmentation_student_dcd")
    where = ["--dataset_dir", bundle.data, "--output_dir", tmp_path, *option]
    printed = bundle.monai("run", "training", *config_files("train"), *where, code=1)
    assert printed.strip().splitlines()[-1] == message
