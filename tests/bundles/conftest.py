"""A bundle small enough to pack, export and run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles.pack import pack
from tests.conftest import BUNDLES, SMALL, read_json

NAME = "hippocampus_segmentation_student"
_LEAVE = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval")


def make_small(name: str, root: Path, seed: int = 0, short: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A shipped bundle made small in its configs, with seeded random weights in ``models/model.pt``.

    Args:
        name: ``<task>_segmentation_<role>``.
        root: receives the copy.
        seed: of the weights.
        short: entries that make the training short; it then distils from the first step.
        settings: further entries of both configs, such as ``pixdim``, and the sliding window's ``overlap``.
    """
    configs = root / name / "configs"
    shutil.copytree(BUNDLES / name, root / name, ignore=_LEAVE)
    inference, train, metadata = (read_json(configs / f"{file}.json") for file in ("inference", "train", "metadata"))
    for inferer in (inference["inferer"], train["validate"]["inferer"]):
        inferer["overlap"] = settings.get("overlap", inferer["overlap"])
    small = {**SMALL[name.split("_")[0]], **{key: value for key, value in settings.items() if key != "overlap"}}
    inference |= small
    train |= {**small, **(short or {})}
    if short and "kd_schedule" in train:
        train["kd_schedule"].update(start=0, ramp=0.1)
    for group in metadata["network_data_format"].values():
        next(iter(group.values()))["spatial_shape"] = small["patch_size"]
    for file, content in (("inference", inference), ("train", train), ("metadata", metadata)):
        (configs / f"{file}.json").write_text(json.dumps(content, indent=4), "utf-8")
    torch.manual_seed(seed)
    network = ConfigParser(inference).get_parsed_content("network_def")
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
