"""The real ISLES and BraTS case, from the published folders to a mask on the input's grid, by small networks."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.commands.main import main as dcd
from tests.conftest import BUNDLES, SMALL, make_workflow, read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),
]
NARROW = {task: {key: value for key, value in SMALL[task].items() if key != "patch_size"} for task in SMALL}


def _prepare(task: str, source: Path, output: Path) -> dict:
    assert dcd(["prepare", task, "--source", str(source), "--output", str(output)]) == 0
    assert dcd(["check", str(output), "--task", task]) == 0
    return read_json(output / "datalist.json")


def _run(name: str, config: str, kind: str, **override) -> None:
    workflow = make_workflow(name, config, kind=kind, num_workers=0, **override)
    workflow.run()
    workflow.finalize()


def _segment(name: str, data: Path, output: Path, **override) -> nib.Nifti1Image:
    _run(name, "inference", "infer", dataset_dir=str(data), output_dir=str(output), **override)
    (path,) = output.rglob("*_seg.nii.gz")
    return nib.load(path)


def _same_grid(seg: nib.Nifti1Image, image: nib.Nifti1Image, classes: int) -> None:
    assert seg.shape == image.shape and seg.get_data_dtype() == np.uint8
    np.testing.assert_allclose(seg.affine, image.affine, atol=1e-4)
    assert set(np.unique(np.asarray(seg.dataobj))) <= set(range(classes))


def test_isles_case_is_prepared_checked_trained_on_and_segmented_on_its_flair_grid(data_dir: Path, tmp_path) -> None:
    name, data, run = "isles22_segmentation_student", tmp_path / "data", tmp_path / "run"
    [entry] = _prepare("isles22", data_dir / "ISLES-2022", data)["training"]
    # with a single case no fold can be held out
    small = {"patch_size": [64, 64, 64], "fold": "all", **NARROW["isles22"]}
    short = {"max_epochs": 1, "iterations_per_epoch": 2, "batch_size": 1, "val_interval": 1}
    folders = {"output_dir": str(run), "ckpt_dir": str(run / "models")}
    _run(
        name,
        "train",
        "train",
        dataset_dir=str(data),
        **folders,
        **small,
        **short,
        **{"validate::inferer::overlap": 0.0},
    )
    history = read_json(run / "training.json")
    assert np.isfinite(history["epochs"][0]["loss"])
    options = {"ckpt_path": str(run / "models" / "model.pt"), "datalist": [entry["image"]], "inferer::overlap": 0.0}
    seg = _segment(name, data, tmp_path / "out", patch_size=[64, 64, 64], **options, **NARROW["isles22"])
    flair = nib.load(data / entry["image"][0])
    assert flair.shape == (512, 512, 29)
    _same_grid(seg, flair, 2)


def test_brats_case_without_labels_is_prepared_checked_and_segmented(data_dir: Path, tmp_path: Path) -> None:
    name, data = "brats24_segmentation_student", tmp_path / "data"
    content = _prepare("brats24", data_dir / "BraTS2024-BraTS-GLI", data)
    assert content["training"] == []
    [entry] = content["test"]
    torch.manual_seed(0)
    config = {**read_json(BUNDLES / name / "configs" / "inference.json"), **NARROW["brats24"]}
    network = ConfigParser(config).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    options = {"ckpt_path": str(tmp_path / "model.pt"), "inferer::overlap": 0.0}
    seg = _segment(name, data, tmp_path / "out", **options, **NARROW["brats24"])
    for image in entry["image"]:
        _same_grid(seg, nib.load(data / image), 5)
