"""What makes runs incomparable, and what the user is told."""

import json
import re
import shutil

import pytest

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.report import load_runs
from tests.conftest import read_json


@pytest.fixture
def pair(three_runs, tmp_path):
    """Two runs that a test may spoil."""
    for source in three_runs[1:]:
        shutil.copytree(source, tmp_path / source.name)
    return [tmp_path / "student", tmp_path / "student_dcd"]


def change(folder, edit):
    file = folder / "metrics.json"
    metrics = read_json(file)
    edit(metrics)
    file.write_text(json.dumps(metrics), "utf-8")


def remove_case(metrics):
    del metrics["cases"]["case3"]


def remove_score(metrics):
    del metrics["cases"]["case3"]["classes"]["rim"]["hd95_mm"]


SPOILED = [
    (
        lambda m: m.update(task="other"),
        "runs with different tasks – student and student_dcd – expected toy, found oth",
    ),
    (lambda m: m.update(nsd_tolerance_mm=2.0), "runs with different NSD tolerances – .* – expected 1.0, found 2.0"),
    (remove_case, "runs with different cases – .*found 1 in one only, e.g. case3 in student"),
    (remove_score, r"run is incomplete – .*case case3, class rim – expected hd95_mm, found nothing"),
    (lambda m: m.update(cases={}), "run is incomplete – .* – expected scored cases, found none"),
    (lambda m: m.pop("seconds_per_case"), "not a result of an evaluation – .*found dcd-metrics-1 without seconds_per"),
    (lambda m: m.update(format="x"), "not a result of an evaluation – .* – expected format dcd-metrics-1, found x"),
]


@pytest.mark.parametrize(("edit", "message"), SPOILED)
def test_spoiled_metrics(pair, edit, message, capsys):
    change(pair[1], edit)
    assert dcd(["compare", *map(str, pair)]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(f"error: {message}.*\n", captured.err) and captured.out == ""


def test_different_classes(pair):
    def rename(metrics):
        metrics["class_names"] = ["core", "ring"]
        for entry in metrics["cases"].values():
            entry["classes"]["ring"] = entry["classes"]["rim"]

    change(pair[1], rename)
    with pytest.raises(UserError, match=r"runs with different classes – .*'rim'\], found \['core', 'ring'\]"):
        load_runs(list(map(str, pair)))


def test_duplicate_case(pair):
    file = pair[1] / "metrics.json"
    file.write_text(file.read_text("utf-8").replace('"case3"', '"case2"'), "utf-8")
    with pytest.raises(UserError, match=r"duplicate case case2 – .*metrics.json – evaluate the run again"):
        load_runs(list(map(str, pair)))


def test_not_json(pair):
    (pair[1] / "metrics.json").write_text("{", "utf-8")
    with pytest.raises(UserError, match=r"file cannot be read – .* – expected JSON, found JSONDecodeError"):
        load_runs(list(map(str, pair)))


@pytest.mark.parametrize(("left", "found"), [("training.json", "training.json only"), (None, "no such file")])
def test_not_evaluated(pair, left, found):
    (pair[1] / "metrics.json").unlink()
    if left is None:
        (pair[1] / "training.json").unlink()
    with pytest.raises(UserError, match=f"run is incomplete – .* – expected metrics.json, found {found} – run the"):
        load_runs(list(map(str, pair)))


def test_one_run_twice_or_alone(pair):
    with pytest.raises(UserError, match=r"run given twice – .*/student – leave one out"):
        load_runs([str(pair[0]), f"again={pair[0]}"])
    with pytest.raises(
        UserError, match=r"nothing to compare – RUN\.\.\. – expected runs of two names or more, found 1"
    ):
        load_runs([str(pair[0])])


def test_names(pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "bundle" / "eval")
    assert [r.name for r in load_runs([str(tmp_path / "bundle" / "eval"), f"x={pair[1]}"])] == ["bundle", "x"]
    shutil.copytree(pair[1], tmp_path / "other" / "student")
    with pytest.raises(UserError, match=r"two runs have one name – student – write name=folder"):
        load_runs([str(pair[0]), str(tmp_path / "other" / "student"), f"x={pair[1]}"])
