"""Students of imported networks train by distillation and are scored, for classes and for regions."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import first_cause
from dcd_ext.io import write_json
from tests.conftest import read_json
from tests.nnunet.conftest import write_results

SHORT = {"max_epochs": 1, "iterations_per_epoch": 2, "val_interval": 1, "num_workers": 0, "cache_rate": 0.0}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "rim": 2, "ignore": 3}, "regions_class_order": [1, 2]}


def run(root: Path, data: Path, *configs: str, **settings: object) -> None:
    files = [str(root / "configs" / f"{config}.json") for config in configs]
    override = {"bundle_root": str(root), "dataset_dir": str(data), "allow_unchecked": True, **SHORT, **settings}
    workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, **override)
    workflow.initialize()
    workflow.run()


@pytest.mark.slow
@pytest.mark.parametrize(("about", "heads"), [({}, 3), (REGIONS, 2)], ids=["classes", "regions with ignore"])
def test_a_student_learns_from_two_folds_and_is_scored(prepared, tmp_path, caplog, about, heads):
    caplog.set_level(logging.INFO)
    data = shutil.copytree(prepared("hippocampus").parent, tmp_path / "data") / "prepared"
    if about:  # some voxels of every label are unknown
        for entry in json.loads((data / "datalist.json").read_text())["training"]:
            path = data / entry["label"]
            label = nib.load(path)
            voxels = np.asarray(label.dataobj).astype("uint8")
            voxels[:, :, ::5] = 3
            path = path.resolve()
            path.unlink()
            nib.save(nib.Nifti1Image(voxels, label.affine), path)
    model = write_results(tmp_path / "results", folds=("0", "1"), heads=heads, about=about, spacing=[1.5, 1.0, 1.0])
    assert dcd(["import-nnunet", "--results", str(model), "--output", str(tmp_path / "bundles")]) == 0
    root = tmp_path / "bundles" / "Dataset041_Toy_segmentation_student_dcd"
    run(root, data, "train", kd_schedule=0.5)
    student = BundleFolder(root).network()
    initial = BundleFolder(root).parser().get_parsed_content("network_def").state_dict()
    # random weights, and no score of nnU-Net's to compare with
    assert "no score to compare with" in caplog.text
    assert any(not torch.equal(value, initial[key]) for key, value in student.state_dict().items())
    if about:  # evaluation refuses labels with unknown voxels
        return
    run(root, data, "train", "evaluate")
    scores = read_json(root / "eval" / "metrics.json")
    assert {"core", "rim"} <= set(json.dumps(scores).split('"'))
    predictions = list((root / "eval" / "predictions").rglob("*.nii.gz"))
    assert predictions
    for path in predictions:
        assert set(np.unique(np.asarray(nib.load(path).dataobj))) <= {0, 1, 2}


def test_a_teacher_that_nnu_net_scored_otherwise_is_refused(prepared, tmp_path):
    """Random weights, said to have been validated with a Dice of 0.9."""
    model = write_results(tmp_path / "results", folds=("1", "3"), spacing=[1.5, 1.0, 1.0])
    for fold, dice in (("1", 0.92), ("3", 0.88)):
        summary = {"foreground_mean": {"Dice": dice}, "mean": {}}
        write_json(summary, model / f"fold_{fold}" / "validation" / "summary.json")
    assert dcd(["import-nnunet", "--results", str(model), "--output", str(tmp_path / "bundles")]) == 0
    root = tmp_path / "bundles" / "Dataset041_Toy_segmentation_student_dcd"
    with pytest.raises(RuntimeError) as caught:  # MONAI wraps what an expression raises
        run(root, prepared("hippocampus"), "train")
    line = str(first_cause(caught.value))
    assert "the teacher does not score as recorded" in line
    expected = r"expected 0.900 \(model.pt\), found val_mean_dice 0\.[0-5]\d\d in \d validation cases"
    assert re.search(expected, line), line
    assert not list(root.rglob("checkpoint_last.pt")) and not (root / "models" / "model.pt").exists()
