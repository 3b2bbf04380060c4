"""Evaluated runs with images, predictions and a training record, made without any network."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dcd_ext.commands.main import main as dcd
from dcd_ext.evaluation import dataset_record, prediction_path, score_file, summarise
from dcd_ext.io import write_json
from dcd_ext.report import load_runs
from dcd_ext.report.runs import Run

NAMES = ["core", "rim"]
SHAPE = (20, 22, 6)
AFFINE = np.diag([-1.0, 1.0, 4.0, 1.0])


def write_run(folder: Path, cases: dict[str, Any], **change: Any) -> Path:
    """A folder with ``metrics.json``."""
    metrics = {
        "format": "dcd-metrics-1",
        "task": "toy",
        "fold": 0,
        "class_names": NAMES,
        "nsd_tolerance_mm": 1.0,
        "parameters": 1000,
        "flops_per_patch": 10**9,
        "patch": [1, 8, 8, 8],
        "seconds_per_case": 0.5,
        "environment": {"device": "a CPU"},
        "summary": summarise([entry["classes"] for entry in cases.values()], change.get("class_names", NAMES)),
        "cases": cases,
    }
    write_json({**metrics, **change}, folder / "metrics.json")
    return folder


def one_case(dice: list[float | None], case: str = "case0") -> dict[str, Any]:
    """Scores of one case, all equal to its Dice per class; None is an empty mask."""
    entries = [
        {"status": "empty" if d is None else "scored", "dice": d, "hd95_mm": d, "nsd": d, "lesion_f1": d} for d in dice
    ]
    return {case: {"classes": dict(zip(NAMES, entries, strict=True)), "seconds": 1.0}}


def runs_of(folder: Path, values: dict[str, Any]) -> list[Run]:
    """Runs whose Dice per case and class is given; None is an empty mask."""
    folders = []
    for name, cases in values.items():
        made: dict[str, Any] = {}
        for i, dice in enumerate(cases):
            made |= one_case(dice, f"case{i}")
        folders.append(str(write_run(folder / name, made)))
    return load_runs(folders)


def training(epochs: int, distilled: bool) -> dict[str, Any]:
    """A training record as the handlers write it."""
    made: list[dict[str, Any]] = []
    for e in range(1, epochs + 1):
        entry = {"epoch": e, "seconds": 1.0, "learning_rate": 0.01, "loss": 1 / e}
        if e % 2 == 0:
            entry["val_mean_dice"] = 1 - 1 / e
        if distilled:
            entry["kd_weight"] = 0.0 if e == 1 else 0.05
            if e > 1:
                entry |= {"seg_loss": 1 / e, "kd_loss": 3 / e, "kd_stage_0": 1 / e, "kd_stage_1": 2 / e}
        made.append(entry)
    return {"environment": {}, "seconds": float(epochs), "epochs": made}


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs ``teacher``, ``student`` and ``student_dcd`` over five cases of two modalities."""
    root = tmp_path_factory.mktemp("runs")
    entries = [_case(root, i) for i in range(5)]
    write_json(
        {"task": "toy", "modality": {"0": "T1", "1": "FLAIR"}, "training": entries, "test": []}, root / "datalist.json"
    )
    runs = [_run(root, name, noise, entries) for name, noise in (("teacher", 1), ("student", 4), ("student_dcd", 2))]
    write_json(training(4, False), runs[0] / "training.json")
    write_json(training(4, True), runs[2] / "training.json")
    return runs


@pytest.fixture(scope="session")
def report(three_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs; what the command printed lies beside it as ``.txt``."""
    output = tmp_path_factory.mktemp("report") / "report.html"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert dcd(["compare", *map(str, three_runs), "--output", str(output), "--pictures", "2"]) == 0
    output.with_suffix(".txt").write_text(printed.getvalue(), "utf-8")
    return output


def _case(root: Path, i: int) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    truth = np.zeros(SHAPE, np.uint8)
    truth[5:15, 6:16, 1:5] = 2
    truth[8:12, 8:12, 2:4] = 1
    nib.save(nib.Nifti1Image(truth, AFFINE), root / f"label{i}.nii.gz")
    for c in "ab":
        noisy = (truth + rng.normal(0, 0.3, SHAPE)).astype(np.float32)
        nib.save(nib.Nifti1Image(noisy, AFFINE), root / f"image{i}{c}.nii.gz")
    return {
        "image": [f"image{i}a.nii.gz", f"image{i}b.nii.gz"],
        "label": f"label{i}.nii.gz",
        "case": f"case{i}",
        "subject": f"case{i}",
        "fold": 0,
    }


def _run(root: Path, name: str, shift: int, entries: list[dict[str, Any]]) -> Path:
    folder, cases = root / name, {}
    for i, entry in enumerate(entries):
        label = root / entry["label"]
        pred = np.roll(np.asarray(nib.load(label).dataobj), shift - i % 2, axis=0)
        # one run misses a class of one case
        if name == "student" and i == 0:
            pred = np.where(pred == 1, 2, pred)
        saved = prediction_path(str(folder), entry["case"])
        cases[entry["case"]] = {
            "classes": score_file(entry["case"], pred, nib.load(label).affine, str(label), NAMES, 1.0, saved),
            "seconds": 0.5,
        }
    maps = {f"stage_{i}": np.random.default_rng(i).random((16 >> i, 24 >> i), dtype=np.float32) for i in range(3)}
    np.savez(folder / "detail_maps.npz", case=np.array("case0"), image=np.ones((2, 16, 24), np.float32), **maps)
    return write_run(folder, cases, **dataset_record(str(root)))
