"""The data of the suite in which the teacher labels images."""

from __future__ import annotations

import runpy
from pathlib import Path

import nibabel as nib
import numpy as np

from dcd_ext.io import write_json
from tests.conftest import ROOT, read_json


def test_the_teacher_labels_what_it_was_not_trained_on(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "unlabelled.py"))
    files = {key: str(ROOT / "examples" / "hippocampus" / f"{key}.nii.gz") for key in ("image", "label")}
    image, true = (nib.load(files[key]) for key in ("image", "label"))
    (tmp_path / "case_1.nii.gz").write_bytes(Path(files["image"]).read_bytes())
    cases = [{**files, "case": f"case_{k}", "subject": f"case_{k}", "fold": k} for k in (1, 2, 3)]
    cases[0] = {**cases[0], "image": "../case_1.nii.gz", "label": "no file: nobody reads it"}
    write_json({"training": cases, "test": []}, tmp_path / "hippocampus" / "datalist.json")
    write_json({"training": cases[:2], "test": []}, tmp_path / "hippocampus_few" / "datalist.json")
    script["main"](tmp_path)
    six, unlabelled = (read_json(tmp_path / f"hippocampus_{k}" / "datalist.json") for k in ("six", "unlabelled"))
    assert [(c["case"], c["fold"]) for c in six["training"]] == [("case_2", 0), ("case_3", 1)]
    assert [(c["case"], c["fold"]) for c in unlabelled["training"]] == [("case_2", 0), ("case_1", 0), ("case_3", 1)]
    made = nib.load(unlabelled["training"][1]["label"])
    assert made.shape == image.shape and np.array_equal(made.affine, image.affine)
    found, wanted = np.asarray(made.dataobj) > 0, np.asarray(true.dataobj) > 0
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.9
