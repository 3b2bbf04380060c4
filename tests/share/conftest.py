"""An honest bundle to plant things in, and one small enough to pack, export and run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.share.pack import pack
from tests.conftest import BUNDLES, SMALL, read_json

NAME = "hippocampus_segmentation_student"
_LEAVE = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a shipped bundle with a checkpoint of one tensor."""
    folder = tmp_path / NAME
    shutil.copytree(BUNDLES / NAME, folder, ignore=_LEAVE)
    torch.save({"weight": torch.zeros(2)}, folder / "models" / "model.pt")
    return folder


def make_small(name: str, root: Path) -> Path:
    """A shipped bundle made small in its configs, with seeded random weights in ``models/model.pt``."""
    shutil.copytree(BUNDLES / name, root / name, ignore=_LEAVE)
    task = name.split("_")[0]
    for file in ("train", "inference"):
        path = root / name / "configs" / f"{file}.json"
        path.write_text(json.dumps({**read_json(path), **SMALL[task]}, indent=4), "utf-8")
    path = root / name / "configs" / "metadata.json"
    metadata = read_json(path)
    for group in metadata["network_data_format"].values():
        next(iter(group.values()))["spatial_shape"] = SMALL[task]["patch_size"]
    path.write_text(json.dumps(metadata, indent=4), "utf-8")
    torch.manual_seed(0)
    network = ConfigParser(read_json(root / name / "configs" / "inference.json")).get_parsed_content("network_def")
    torch.save(network.state_dict(), root / name / "models" / "model.pt")
    return root / name


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small plain student with weights, not packed. Not to be changed."""
    return make_small(NAME, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def packed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of ``small``. Not to be changed."""
    return pack(small, small / "models" / "model.pt", tmp_path_factory.mktemp("dist"))
