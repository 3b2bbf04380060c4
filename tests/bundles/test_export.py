"""Exports compute what the network does, for inputs of other shapes and batches, and say nothing of this machine."""

import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata

from dcd_ext.bundles.export import FORMATS, load_torchscript
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.commands.main import main as dcd
from tests.bundles.conftest import NAME
from tests.conftest import read_json
from tests.processes import fork_module

pytestmark = pytest.mark.slow
SHAPES = [(1, 1, 16, 24, 16), (2, 1, 24, 16, 32), (3, 1, 40, 56, 40)]


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """The small bundle with TorchScript, and ONNX where its packages are."""
    root = tmp_path_factory.mktemp("exported") / NAME
    shutil.copytree(small, root)
    assert dcd(["export", str(root), "--formats", "torchscript"]) == 0
    return root


@pytest.mark.parametrize("shape", SHAPES)
def test_torchscript_is_exact_on_other_shapes(shape, exported):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = BundleFolder(exported).network()(image)
        assert (load_torchscript(exported / "models" / "model.ts")(image) - expected).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_torchscript_carries_configs_and_nothing_of_this_machine(exported):
    path = exported / "models" / "model.ts"
    _, metadata, extra = load_net_with_metadata(str(path), more_extra_files=("inference.json",))
    assert metadata == read_json(exported / "configs" / "metadata.json") and b"network_def" in extra["inference.json"]
    with zipfile.ZipFile(path) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"model"}
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"site-packages" not in content and str(exported.parent).encode() not in content


@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_with_dynamic_batch_and_space(shape, exported):
    import onnx
    import onnxruntime as runtime

    path = exported / "models" / "model.onnx"
    if not path.exists():
        assert dcd(["export", str(exported), "--formats", "onnx"]) == 0
    onnx.checker.check_model(onnx.load(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    assert spec.name == "image" and spec.shape == ["batch", 1, "x", "y", "z"]
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = BundleFolder(exported).network()(image).numpy()
    assert np.abs(session.run(["pred"], {"image": image.numpy()})[0] - expected).max() < 1e-4


def infer(root, configs, data, output, *more):
    files = [str(root / "configs" / f"{name}.json") for name in configs]
    arguments = ["run", "inference", "--bundle_root", root, "--config_file", files]
    arguments += ["--dataset_dir", data, "--output_dir", output, *more]
    result = fork_module("monai.bundle", arguments, output.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = output.rglob("*_seg.nii.gz")
    return nib.load(file)


def test_fast_overlay_gives_the_same_label_map(exported, prepared, tmp_path):
    """In float32: random weights leave ties that bfloat16 breaks otherwise."""
    data = prepared("hippocampus")
    plain = infer(exported, ["inference"], data, tmp_path / "plain")
    precise = ("--openvino_config#INFERENCE_PRECISION_HINT", "f32")
    fast = infer(exported, ["inference", "fast_cpu"], data, tmp_path / "fast", *precise)
    assert np.array_equal(plain.affine, fast.affine) and plain.shape == fast.shape
    assert (np.asarray(plain.dataobj) == np.asarray(fast.dataobj)).mean() > 0.9999


def test_tensorrt_overlay_runs_the_file_it_names(exported, prepared, tmp_path):
    """With plain TorchScript in the place of an engine, which only a GPU can make."""
    data = prepared("hippocampus")
    path = ("--trt_path", str(exported / "models" / "model.ts"), "--device", "$torch.device('cpu')")
    plain, swapped = (
        infer(exported, ["inference", *overlay], data, tmp_path / f"out{len(overlay)}", *more)
        for overlay, more in (([], ()), (["inference_trt"], path))
    )
    assert np.array_equal(np.asarray(plain.dataobj), np.asarray(swapped.dataobj))


def test_scripting_fails_at_the_skip_connections(exported, tmp_path):
    """Why exports are traced: these networks choose their skip connection by a lambda. The READMEs say so."""
    arguments = ["ckpt_export", "--net_id", "network_def", "--filepath", tmp_path / "model.ts"]
    arguments += ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
    result = fork_module("monai.bundle", [*arguments, "--ckpt_file", "models/model.pt"], exported)
    assert result.returncode != 0 and "has no attribute 'skip'" in result.stderr
    assert not (tmp_path / "model.ts").exists()
    assert "chosen by a lambda" in (exported / "docs" / "README.md").read_text("utf-8")


def test_a_bundle_without_weights_says_so(small, tmp_path, capsys):
    shutil.copytree(small, tmp_path / NAME, ignore=shutil.ignore_patterns("*.pt"))
    assert dcd(["export", str(tmp_path / NAME)]) == 1
    assert "weights not found – " in capsys.readouterr().err


def test_a_failed_export_leaves_the_earlier_one(exported, monkeypatch, capsys):
    def another(_bundle, path):
        path.write_bytes(b"another export")
        return path

    before = (exported / "models" / "model.ts").read_bytes()
    files = {path.name for path in (exported / "models").iterdir()}
    kind = FORMATS["torchscript"]._replace(make=another, run=lambda *_: torch.tensor(torch.nan))
    monkeypatch.setitem(FORMATS, "torchscript", kind)
    assert dcd(["export", str(exported)]) == 1
    assert "export differs – model.ts – expected within 1e-05, found nan" in capsys.readouterr().err
    assert (exported / "models" / "model.ts").read_bytes() == before
    assert {path.name for path in (exported / "models").iterdir()} == files
