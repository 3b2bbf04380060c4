"""The real cases, where they are at hand: 200 hippocampi, one BraTS and one ISLES case."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import ROOT

SHARE = ["--test_fold", "0", "--training_share", "0.25"]


def test_hippocampus_gives_folds_of_forty_and_a_clean_report(command, data_dir: Path, tmp_path: Path) -> None:
    assert command("prepare", "msd", "--source", data_dir / "Task04_Hippocampus", "--output", tmp_path).code == 0
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert content["task"] == "hippocampus"
    assert set(Counter(entry["fold"] for entry in content["training"]).values()) == {40}
    outcome = command("check", tmp_path, "--task", "hippocampus")
    assert outcome.code == 0 and "200 cases: 0 errors, 0 warnings" in outcome.out


def test_the_parts_of_the_benchmark_are_those_its_runs_were_made_with(command, data_dir: Path, tmp_path: Path) -> None:
    """The script that made them, in a few lines: fold 0 tests, fold 1 selects, a quarter of folds 2 to 4."""
    source = data_dir / "Task04_Hippocampus"
    lists = {}
    for name, options in {"all": [], "full": ["--test_fold", "0"], "quarter": SHARE}.items():
        assert command("prepare", "hippocampus", "--source", source, "--output", tmp_path / name, *options).code == 0
        lists[name] = json.loads((tmp_path / name / "datalist.json").read_text())
    rest = [c for c in lists["all"]["training"] if c["fold"] != 0]
    test = [{k: v for k, v in c.items() if k != "fold"} for c in lists["all"]["training"] if c["fold"] == 0]
    others = [c for c in rest if c["fold"] != 1]
    random.Random(12345).shuffle(others)
    few = [c for c in rest if c["fold"] == 1] + sorted(others[: len(others) // 4], key=lambda c: c["case"])
    for name, training in (("full", rest), ("quarter", few)):
        counts = {"numTraining": len(training), "numTest": len(test)}
        expected = {**lists["all"], **counts, "training": training, "test": test}
        assert json.dumps(lists[name]) == json.dumps(expected)
    assert [len(lists["quarter"][key]) for key in ("training", "test")] == [70, 40]
    scored = json.loads((ROOT / "benchmarks/results/hippocampus/teacher/seed1/test/metrics.json").read_text())
    assert sorted(scored["cases"]) == [c["case"] for c in test]


def test_brats_case_without_labels_is_a_test_case(command, data_dir: Path, tmp_path: Path) -> None:
    assert command("prepare", "brats24", "--source", data_dir / "BraTS2024-BraTS-GLI", "--output", tmp_path).code == 0
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert content["training"] == [] and content["test"][0]["case"] == "BraTS-GLI-00001-000"
    outcome = command("check", tmp_path)
    assert outcome.code == 0 and "nothing to train on" in outcome.out


def test_isles_case_goes_onto_its_flair_grid(command, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "ISLES-2022"
    outcome = command("prepare", "isles22", "--source", source, "--output", tmp_path, "--jobs", "1")
    assert outcome.code == 0 and "0.449×0.449×5 mm (1)" in outcome.out
    [entry] = json.loads((tmp_path / "datalist.json").read_text())["training"]
    label, mask = nib.load(tmp_path / entry["label"]), nib.load(tmp_path / entry["source_mask"])
    assert label.shape == (512, 512, 29)
    volumes = [np.count_nonzero(i.dataobj) * abs(np.linalg.det(i.affine[:3, :3])) / 1000 for i in (label, mask)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.1)  # millilitres
    assert command("check", tmp_path).code == 0
