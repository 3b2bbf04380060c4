"""An honest bundle to plant things in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import BUNDLES

NAME = "hippocampus_segmentation_student"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a shipped bundle with a checkpoint of one tensor."""
    folder = tmp_path / NAME
    shutil.copytree(BUNDLES / NAME, folder, ignore=shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval"))
    torch.save({"weight": torch.zeros(2)}, folder / "models" / "model.pt")
    return folder
