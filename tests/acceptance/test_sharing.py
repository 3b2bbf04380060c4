"""Pack, verify, publish, download and load bundles, and run MONAI's own checks on them."""

from __future__ import annotations

import json
import re
import shutil
import zipfile

import monai.bundle
import pytest
import torch

from dcd_ext.bundles.checks import OK, SKIPPED
from dcd_ext.bundles.export import ONNX_TOLERANCE, export, session
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.pack import pack
from dcd_ext.bundles.verify import DIFFERS, verify
from dcd_ext.bundles.verify_text import SCHEMA
from dcd_ext.io import sha256
from dcd_ext.networks import count_parameters
from tests.acceptance.conftest import DISTILLED
from tests.bundles.hub import served
from tests.conftest import BUNDLES, read_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(bundles):
    """Regions in several images, with a teacher; classes in one, without: tests/bundles/test_shipped_weights.py."""
    return bundles("brats24_segmentation_student_dcd")


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
