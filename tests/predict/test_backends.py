"""Every way to run a trained bundle gives the label maps of ``monai.bundle run inference``."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from dcd_ext.bundles.pack import pack
from dcd_ext.commands.main import main as dcd
from dcd_ext.data import load_cases
from dcd_ext.errors import UserError
from dcd_ext.predict import Predictor, quantize
from dcd_ext.predict.backends import BACKENDS
from dcd_ext.predict.standalone import write_standalone
from scripts import bench_predict
from tests.bundles.conftest import NAME, make_small
from tests.conftest import read_json
from tests.processes import fork_module

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def data(prepared) -> Path:
    return prepared("hippocampus")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """Weights that have learned something: random ones leave ties that rounding breaks."""
    root = make_small(NAME, tmp_path_factory.mktemp("trained"))
    arguments = ["run", "training", "--config_file", "configs/train.json", "--bundle_root", "."]
    arguments += ["--dataset_dir", data, "--ema_decay", "0", "--num_workers", "0"]
    arguments += ["--max_epochs", "4", "--iterations_per_epoch", "30", "--val_interval", "2", "--batch_size", "4"]
    result = fork_module("monai.bundle", arguments, root)
    assert result.returncode == 0, result.stdout + result.stderr
    return root


@pytest.fixture(scope="module")
def images(data, tmp_path_factory) -> Path:
    """Images in a folder of their own."""
    folder = tmp_path_factory.mktemp("images")
    for case in load_cases(str(data), "validation", 0):
        shutil.copy(case["image"], folder)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def expected(trained, images, tmp_path_factory) -> dict[str, np.ndarray]:
    output = tmp_path_factory.mktemp("expected")
    arguments = ["run", "inference", "--config_file", "configs/inference.json", "--bundle_root", "."]
    result = fork_module("monai.bundle", [*arguments, "--dataset_dir", images, "--output_dir", output], trained)
    assert result.returncode == 0, result.stdout + result.stderr
    return label_maps(output)


def label_maps(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(nib.load(path).dataobj) for path in folder.rglob("*_seg.nii.gz")}


def agreement(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Share of equal voxels."""
    assert found.keys() == expected.keys() and len(expected) > 0
    return float(np.mean([(found[name] == expected[name]).mean() for name in expected]))


@pytest.mark.parametrize(
    ("backend", "least"), [("eager", 1.0), ("openvino", 0.9999), ("onnxruntime", 0.9999), ("auto", 0.995)]
)
def test_label_maps(backend, least, trained, images, expected, tmp_path) -> None:
    assert {len(np.unique(labels)) for labels in expected.values()} == {3}
    arguments = ["predict", str(trained), str(images), "--output", str(tmp_path), "--backend", backend]
    assert dcd([*arguments, "--threads", "1"]) == 0
    assert agreement(label_maps(tmp_path), expected) >= least
    summary = read_json(tmp_path / "summary.json")
    assert summary["segmented"] == len(expected) and summary["cases"][0]["seconds"]["network"] > 0


def test_predictor_takes_a_case(trained, images, expected) -> None:
    file = sorted(images.iterdir())[0]
    predictor = Predictor(trained, "openvino", threads=1)
    labels, affine = predictor([file])
    assert (predictor(str(file))[0] == labels).all()
    assert np.allclose(affine, nib.load(file).affine)
    assert (labels == expected[file.name.replace(".nii.gz", "_seg.nii.gz")]).mean() > 0.9999


def test_mixed_precision_is_that_of_a_gpu(trained, images, expected, tmp_path) -> None:
    """As in MONAI's evaluator, whatever the config says."""
    shutil.copytree(trained, tmp_path / "bundle")
    path = tmp_path / "bundle" / "configs" / "inference.json"
    config = read_json(path)
    config["evaluator"]["amp"] = "True"
    path.write_text(json.dumps(config), "utf-8")
    file = sorted(images.iterdir())[0]
    labels, _ = Predictor(tmp_path / "bundle", "eager", threads=1)([file])
    assert (labels == expected[file.name.replace(".nii.gz", "_seg.nii.gz")]).all()


def test_small_numbers_exist_after_eager_as_before(trained, images) -> None:
    """Where they are flushed, building a KD-tree of points with equal coordinates ends in a stack overflow."""
    Predictor(trained, "eager", threads=1)([sorted(images.iterdir())[0]])
    assert np.nextafter(0.0, 1.0) > 0.0


def test_standalone_folder_needs_neither_torch_nor_monai(trained, images, expected, tmp_path) -> None:
    folder, blocked, output = tmp_path / "app", tmp_path / "blocked", tmp_path / "masks"
    assert dcd(["export", str(trained), "--formats", "standalone", "--output", str(folder)]) == 0
    blocked.mkdir()
    for package in ("torch", "monai", "dcd_ext"):
        (blocked / f"{package}.py").write_text("raise ImportError('not here')")
    command = [sys.executable, "-P", str(folder / "predict.py"), str(images), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert agreement(label_maps(output), expected) > 0.9999


@pytest.mark.parametrize("after", [0.7949, float("nan")])
def test_int8_beyond_its_bound_is_refused(after) -> None:
    quantize.require_bound("a", 0.8, 0.7951, 0.005)
    with pytest.raises(UserError, match="INT8 loses too much Dice – a – expected a drop up to 0.005, found 0.8000"):
        quantize.require_bound("a", 0.8, after, 0.005)


def assert_packed(root: Path, dice: dict, output: Path) -> None:
    """The INT8 network is in the zip, its Dice in the card; beside other weights it is refused."""
    with zipfile.ZipFile(pack(root, root / "models" / "model.pt", output)) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
        card = archive.read(f"{NAME}/README.md").decode()
    assert {f"models/int8/{name}" for name in ("network_int8.xml", "network_int8.bin", "pipeline.json")} < names
    assert f"mean Dice {dice['dice_int8']:.4f} where float32 has {dice['dice_float32']:.4f}" in card
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    torch.save({key: 2 * value for key, value in weights.items()}, output / "others.pt")
    with pytest.raises(UserError, match="INT8 network of other weights"):
        pack(root, output / "others.pt", output)


def test_int8_keeps_its_bound(trained, data, images, expected, tmp_path) -> None:
    root = shutil.copytree(trained, tmp_path / NAME)
    arguments = ["export", str(root), "--formats", "int8", "--dataset_dir", str(data), "--max_drop", "0.05"]
    assert dcd(arguments) == 0
    dice = json.loads((root / "models" / "int8" / "pipeline.json").read_text())["int8"]
    assert dice["dice_float32"] - dice["dice_int8"] <= 0.05
    output = tmp_path / "masks"
    assert dcd(["predict", str(root), str(images), "--output", str(output), "--backend", "int8"]) == 0
    assert agreement(label_maps(output), expected) > 0.98
    assert_packed(root, dice, tmp_path / "dist")
    overlay = tmp_path / "overlay"
    files = "['configs/inference.json','configs/fast_cpu.json']"
    arguments = ["run", "inference", "--config_file", files, "--bundle_root", ".", "--dataset_dir", images]
    # without model.ts: the quantised network is all there is
    result = fork_module("monai.bundle", [*arguments, "--output_dir", overlay], root)
    assert result.returncode == 0, result.stdout + result.stderr
    assert agreement(label_maps(overlay), expected) > 0.98


def test_a_bad_file_among_good_ones(trained, images, expected, tmp_path, caplog) -> None:
    shutil.copytree(images, tmp_path / "in")
    first = sorted((tmp_path / "in").iterdir())[0]
    first.write_bytes(first.read_bytes()[:100])
    for backend in ("eager", "openvino"):
        output = tmp_path / backend
        assert dcd(["predict", str(trained), str(tmp_path / "in"), "--output", str(output), "--backend", backend]) == 1
        failed = [case for case in read_json(output / "summary.json")["cases"] if case["error"]]
        assert [case["case"] for case in failed] == [first.name.removesuffix(".nii.gz")]
        assert str(first) in failed[0]["error"] and len(label_maps(output)) == len(expected) - 1


REFUSED = {
    "no weights": "not a trained bundle – ",
    "no bundle": "no metadata of a bundle – ",
    "no int8": "no INT8 network – ",
    "output is an image": "cannot create the output folder – ",
    "no such device": "no such device – --device – expected cpu, or a GPU that torch finds, found cuda:77",
    "device without effect": "device without effect – --device – expected cpu with --backend openvino, found cuda:0",
    "damaged export": "exported network cannot be read – ",
}


@pytest.mark.parametrize("damage", REFUSED)
def test_what_cannot_be_run_is_one_line(damage, trained, images, tmp_path, capsys) -> None:
    root = shutil.copytree(trained, tmp_path / NAME)
    output = tmp_path / "o"
    options = {"no int8": ["--backend", "int8"], "no such device": ["--device", "cuda:77"]}
    options["device without effect"] = ["--backend", "openvino", "--device", "cuda:0"]
    if damage == "no weights":
        (root / "models" / "model.pt").unlink()
    elif damage == "no bundle":
        root = tmp_path / "nowhere"
    elif damage == "output is an image":
        output.write_bytes(b"an image")
    elif damage == "damaged export":
        root = write_standalone(root, tmp_path / "exported")
        (root / "network.xml").write_bytes(b"<half")
    assert dcd(["predict", str(root), str(images), "--output", str(output), *options.get(damage, [])]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {REFUSED[damage]}")
    assert damage != "output is an image" or output.read_bytes() == b"an image"


def test_benchmark_measures_whole_commands(trained, images, tmp_path, capsys) -> None:
    also = f"any:copy={sys.executable} -c \"import shutil; shutil.copytree('{{input}}', '{{output}}/masks')\""
    arguments = [str(trained), "--images", str(images), "--cases", "2", "--repeats", "1", "--threads", "1"]
    bench_predict.main([*arguments, "--backends", "openvino", "--also", also, "--output", str(tmp_path)])
    rows = read_json(tmp_path / "predict_cases.json")["rows"]
    assert [(row["network"], row["backend"]) for row in rows] == [(NAME, "openvino"), ("any", "copy")]
    assert all(row["seconds"][0] > 0 and row["peak_gib"][0] > 0 for row in rows)
    # measured once: the second call only writes the table, here into a page
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- cases -->\nold\n<!-- end cases -->\nz\n")
    bench_predict.main(
        [
            *arguments,
            "--backends",
            "openvino",
            "--also",
            "any:copy=false",
            "--output",
            str(tmp_path),
            "--page",
            str(page),
        ]
    )
    text = page.read_text()
    assert text.startswith("a\n") and text.endswith("z\n") and "| openvino |" in text and "old" not in text
    assert set(BACKENDS) >= {"eager", "openvino", "int8"} and "openvino" in capsys.readouterr().out
