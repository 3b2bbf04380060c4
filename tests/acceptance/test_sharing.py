"""Pack, verify, publish, download and load bundles, and run MONAI's own checks on them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile

import monai.bundle
import pytest
import torch

from dcd_ext.bundles.checks import OK, SKIPPED
from dcd_ext.bundles.export import export
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.large_files import move_out
from dcd_ext.bundles.onnx_export import ONNX_TOLERANCE, session
from dcd_ext.bundles.pack import pack
from dcd_ext.bundles.sums import write_sums
from dcd_ext.bundles.verify import DIFFERS, verify
from dcd_ext.bundles.verify_text import SCHEMA
from dcd_ext.io import sha256
from dcd_ext.networks import count_parameters
from tests.acceptance.conftest import DISTILLED
from tests.bundles.hub import served
from tests.conftest import BUNDLES, read_json

pytestmark = pytest.mark.slow
LOAD = """
import sys, torch, monai.bundle
name, folder = sys.argv[1:]
for kind in ("train", "inference"):
    assert isinstance(monai.bundle.load(name, bundle_dir=folder, workflow_type=kind), torch.nn.Module)
_, metadata, extra = monai.bundle.load(name, bundle_dir=folder, load_ts_module=True, config_files=("inference.json",))
assert metadata["name"] and "network_def" in extra["inference.json"].decode()
"""


@pytest.fixture(scope="module", params=["brats24_segmentation_student_dcd", "hippocampus_segmentation_student"])
def bundle(request, bundles):
    """Regions in several images, and classes in one; with and without a teacher."""
    return bundles(request.param)


@pytest.fixture(scope="module")
def packed(bundle, tmp_path_factory):
    """Its zip."""
    return pack(bundle.root, bundle.root / "models" / "model.pt", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(packed, bundle, tmp_path_factory):
    """Folder that holds the unpacked bundle."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    return folder


def test_every_check_of_ours_passes(packed):
    """Without ONNX, which is not packed, and sizes, which concern git; the configs are ours, made small."""
    status = {r.check: r.status for r in verify(packed, trust=True)}
    assert status.pop("onnx") == status.pop("sizes") == SKIPPED and status.pop("sources") == DIFFERS
    names = "files version metadata sha256 paths readme weights network torchscript properties"
    assert status == dict.fromkeys(names.split(), OK)


@pytest.mark.parametrize("name", [*DISTILLED, "hippocampus_segmentation_student"])
def test_monai_s_own_checks_of_what_is_committed(name, tmp_path):
    """Metadata against the schema, and the network at its full patch; the check of the metadata can fail."""
    configs = BUNDLES / name / "configs"
    schema = {"filepath": str(SCHEMA), "hash_val": sha256(SCHEMA), "hash_type": "sha256"}
    monai.bundle.verify_metadata(meta_file=str(configs / "metadata.json"), **schema)
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )
    metadata = {k: v for k, v in read_json(configs / "metadata.json").items() if k != "task"}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="'task' is a required property"):
        monai.bundle.verify_metadata(meta_file=str(tmp_path / "metadata.json"), **schema)


def test_weights_are_plain_and_as_many_as_the_card_says(unpacked, bundle):
    root = unpacked / bundle.name
    state = torch.load(root / "models" / "model.pt", weights_only=True)
    assert type(state).__name__ in ("OrderedDict", "dict") and all(isinstance(v, torch.Tensor) for v in state.values())
    stated = re.search(r"([\d,]+) parameters", (root / "README.md").read_text("utf-8"))
    assert stated and int(stated[1].replace(",", "")) == count_parameters(BundleFolder(root).network())


def test_onnx_has_free_axes_and_agrees_on_other_shapes_and_batches(bundle, tmp_path):
    """The exporter runs ONNX's own checker."""
    root = shutil.copytree(bundle.root, tmp_path / bundle.name)
    ((path, difference),) = export(root, ["onnx"])
    assert difference < ONNX_TOLERANCE and path == root / "models" / "model.onnx"
    (image,) = session(path).get_inputs()
    assert image.name == "image" and image.shape == ["batch", bundle.config("train")["in_channels"], "x", "y", "z"]


def test_packed_twice_is_the_same_file(packed, bundle, tmp_path):
    assert pack(bundle.root, bundle.root / "models" / "model.pt", tmp_path).read_bytes() == packed.read_bytes()


def load_elsewhere(name, folder, cwd):
    command = [sys.executable, "-W", "ignore", "-c", LOAD, name, str(folder)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_downloaded_by_its_address_it_loads_anywhere(packed, bundle, tmp_path):
    got = tmp_path / "got"
    bundle.monai("download", "--name", bundle.name, "--url", packed.as_uri(), "--bundle_dir", got, cwd=tmp_path)
    load_elsewhere(bundle.name, got, "/")


def test_downloaded_from_a_hub_it_is_what_was_packed(packed, unpacked, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with served(unpacked, hub=True) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        source = ["--source", "huggingface_hub", "--repo", f"org/{bundle.name}", "--version", "0.1.0"]
        bundle.monai(
            "download", "--name", bundle.name, *source, "--bundle_dir", tmp_path / "got", cwd=tmp_path, fresh=True
        )
    status = {r.check: r.status for r in verify(tmp_path / "got" / bundle.name, trust=True)}
    assert status["sha256"] == status["torchscript"] == OK


def test_large_files_are_downloaded_and_checked_by_their_hash(unpacked, bundle, tmp_path):
    got = shutil.copytree(unpacked / bundle.name, tmp_path / bundle.name)
    with served(tmp_path) as address:
        write_sums(got, move_out(got, tmp_path / "away", f"{address}/away"))
        assert not (got / "models" / "model.pt").exists()
        bundle.monai("download_large_files", "--bundle_path", got, cwd=tmp_path)
        assert {r.status for r in verify(got, trust=True) if r.check in ("sha256", "weights", "torchscript")} == {OK}
        (got / "models" / "model.pt").unlink()
        listing = got / "large_files.yml"
        listing.write_text(re.sub("hash_val: [0-9a-f]{64}", "hash_val: " + "0" * 64, listing.read_text()))
        printed = bundle.monai("download_large_files", "--bundle_path", got, cwd=tmp_path, code=1)
    assert "sha256 hash check of" in printed
