"""Tables of a benchmark: from whatever is finished, wherever its folder lies."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dcd_ext.bundles.runs import Run, time_to_go
from dcd_ext.bundles.suites import read_suite, suite_runs
from dcd_ext.commands.benchmark import _use_teacher
from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.io import write_json
from scripts.write_benchmark import best_rows, comparisons, main_table, overall, require_suite, suite_text
from tests.bundles.test_runs import SUITE
from tests.conftest import ROOT, read_json
from tests.report.conftest import one_case, write_run


def fill(output: Path, run: Run, suite: dict) -> None:
    """What a finished run leaves behind, with scores drawn from its name."""
    folder = output / run.folder
    rng = np.random.default_rng(len(str(run.folder)) + run.options["seed"])
    for part in suite["score"]:
        made: dict = {}
        for i in range(8):
            made |= one_case(rng.uniform(0.6, 0.9, 2).tolist(), f"{part}{i}")
        write_run(folder / part, made)
    options = {k: str(v) for k, v in run.options.items()}
    write_json({"bundle": run.bundle, "files": list(run.files), **options}, folder / "run.json")
    write_json(
        {"environment": {}, "seconds": 60.0, "epochs": [{"epoch": 1, "seconds": 60.0}]}, folder / "training.json"
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.json"
    write_json({**SUITE, "students": {"r8": {"reduction_factor": 8}}}, path)
    return path


def tables(suite: Path, output: Path) -> dict[str, str]:
    assert dcd(["benchmark", str(suite), "--output", str(output), "--tables"]) == 0
    return {p.name: p.read_text("utf-8") for p in sorted(output.glob("*.*")) if p.suffix in (".md", ".json")}


def test_folders_filled_on_two_machines_and_copied_into_one_give_the_same_tables(suite: Path, tmp_path: Path) -> None:
    content, there = read_json(suite), {name: tmp_path / name for name in ("all", "one", "two", "merged")}
    for number, run in enumerate(suite_runs(content, Path("."))):
        fill(there["all"], run, content)
        shutil.copytree(there["all"] / run.folder, there["one" if number % 2 else "two"] / run.folder)
    shutil.copytree(there["one"], there["two"] / ".." / "merged")
    shutil.copytree(there["two"], there["merged"], dirs_exist_ok=True)
    merged = tables(suite, there["merged"])
    assert merged == tables(suite, there["all"])
    assert sorted(merged) == [f"r8_{part}.{kind}" for part in ("selection", "test") for kind in ("json", "md")]
    assert "test part, which chose nothing" in merged["r8_test.md"]
    assert "selection scores: it also chose the epoch" in merged["r8_selection.md"]
    assert json.loads(merged["r8_test.json"])["baseline"] == "plain"
    assert "plain 2, cwd 1" in merged["r8_test.md"]


def test_tables_are_written_from_what_there_is(suite: Path, tmp_path: Path, capsys) -> None:
    content = read_json(suite)
    teacher, plain, *_ = suite_runs(content, Path("."))
    fill(tmp_path / "out", teacher, content)
    assert tables(suite, tmp_path / "out") == {} and "nothing to compare yet" in capsys.readouterr().out
    fill(tmp_path / "out", plain, content)
    shutil.rmtree(tmp_path / "out" / teacher.folder / "models", ignore_errors=True)
    assert len(tables(suite, tmp_path / "out")) == 4
    assert "0 of 4 runs" in capsys.readouterr().out


def test_a_run_of_another_suite_is_not_mixed_in(suite: Path, tmp_path: Path, capsys) -> None:
    content, output = read_json(suite), tmp_path / "out"
    for run in suite_runs(content, Path(".")):
        fill(output, run, content)
    file = output / "r8" / "cwd" / "seed1" / "run.json"
    write_json({**read_json(file), "dataset_dir": "elsewhere/data", "teacher_ckpt": "elsewhere/model.pt"}, file)
    assert tables(suite, output)
    write_json({**read_json(file), "kd_weight": "4"}, file)
    capsys.readouterr()
    assert dcd(["benchmark", str(suite), "--output", str(output), "--tables"]) == 1
    assert "error: run with another kd_weight – " in capsys.readouterr().err


def test_a_given_teacher_is_used_and_not_trained(suite: Path, tmp_path: Path, capsys) -> None:
    content = {**read_json(suite), "teacher_ckpt": str(tmp_path / "given.pt")}
    write_json(content, suite)
    command = ["benchmark", str(suite), "--output", str(tmp_path / "out"), "--methods", "plain"]
    assert dcd(command) == 1
    assert "error: no teacher – " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_other_weights_are_not_taken_for_the_teacher_of_what_is_there(tmp_path: Path) -> None:
    given, folder = tmp_path / "given.pt", tmp_path / "out"
    given.write_bytes(b"weights")
    _use_teacher(given, folder)
    given.write_bytes(b"better")
    with pytest.raises(UserError, match="run with another teacher – .*choose another --output"):
        _use_teacher(given, folder)
    assert (folder / "models" / "model.pt").read_bytes() == b"weights"
    training = tmp_path / "training"
    training.mkdir()
    (training / "checkpoint_last.pt").touch()
    with pytest.raises(UserError, match="run with another teacher"):
        _use_teacher(given, training)
    with pytest.raises(UserError, match="no teacher – .*found a folder"):
        _use_teacher(folder, folder)


def test_records_are_copied_to_their_own_suite_only(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "benchmarks" / "hippocampus.json"
    content = read_suite(path)
    with pytest.raises(UserError, match="no finished run"):
        require_suite(path, tmp_path)
    teacher, plain, *_ = suite_runs(content, Path("."))
    for run in (teacher, plain):
        fill(tmp_path, run, content)
    require_suite(path, tmp_path)
    with pytest.raises(UserError, match="run with another|a run of another suite"):
        require_suite(path.with_name("hippocampus_adamw.json"), tmp_path)
    with pytest.raises(UserError, match="no part of the page"):
        require_suite(tmp_path / "suite.json", tmp_path)


def test_given_weights_are_there_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    given, folder = tmp_path / "given.pt", tmp_path / "out"
    given.write_bytes(b"weights")

    def full(_source: Path, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(UserError, match="cannot write the file – .*No space left on device"):
            _use_teacher(given, folder)
    assert not list((folder / "models").iterdir())
    _use_teacher(given, folder)
    assert (folder / "models" / "model.pt").read_bytes() == b"weights"
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["model.pt", "trained"]


def test_the_page_of_a_suite_in_which_only_plain_students_are_finished(suite: Path, tmp_path: Path) -> None:
    content, output = read_json(suite), tmp_path / "out"
    for run in suite_runs(content, Path(".")):
        if run.folder.parent.name != "cwd":
            fill(output, run, content)
    found = comparisons(suite, output)
    assert not best_rows("suite, r8", main_table(found["r8_test"]), found["r8_selection"], content["methods"])
    assert "plain 2" in suite_text(content, found, "suite", "")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.json")), ids=lambda path: path.stem)
def test_shipped_suites_name_bundles_that_exist_or_can_be_built(path: Path, tmp_path: Path, monkeypatch) -> None:
    suite = read_suite(path)
    name = path.stem.removesuffix("_short")
    task = ROOT / "benchmarks" / "tasks" / f"{name}.json"
    if task.is_file():
        folder = Path(suite["bundles"]).parent
        assert dcd(["build", str(task), "--output", str(tmp_path / folder)]) == 0
        monkeypatch.chdir(tmp_path)
        metadata = read_json(folder / f"{name}_segmentation_teacher" / "configs" / "metadata.json")
        assert len(metadata["network_data_format"]["outputs"]["pred"]["channel_def"]) in (2, 55)
    else:
        monkeypatch.chdir(ROOT)
        assert Path(suite["teacher_ckpt"]).is_file()
    assert len(suite_runs(suite, tmp_path / "out")) > len(suite["methods"])


def test_time_to_go_is_that_of_trainings_alike(tmp_path: Path) -> None:
    def run(name: str, seed: int, seconds: float | None, trained: bool, **options: int) -> Run:
        folder = tmp_path / f"{name}{seed}"
        if seconds is not None:
            write_json({"seconds": seconds}, folder / "training.json")
        if trained:
            (folder / "models").mkdir()
            (folder / "models" / "trained").touch()
        return Run(folder, "bundle", ["train.json"], {"seed": seed, **options})

    first = run("a", 1, None, False)
    assert time_to_go([first], 1) == "time unknown until one is done"
    runs = [first, run("a", 2, 3600.0, True), run("b", 1, 7200.0, True, width=2), run("b", 2, 1800.0, False, width=2)]
    # one hour of a's kind, and what is left of two of b's
    assert time_to_go(runs, 1) == "about 2.5 h of training to go"
    assert time_to_go([*runs, run("c", 1, None, False, width=3)], 2) == "about 2.0 h of training to go"


def test_the_only_class_stands_for_all():
    assert overall({"results": {"dice": {"lesion": {}}}, "classes": ["lesion"]}) == "lesion"
    assert overall({"results": {"dice": {"a": {}, "b": {}, "mean": {}}}, "classes": ["a", "b"]}) == "mean"
