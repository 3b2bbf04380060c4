"""What makes runs incomparable, and what the user is told."""

import json
import re
import shutil

import pytest

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.readers import read_metrics, read_training
from dcd_ext.report import load_runs
from tests.conftest import read_json
from tests.report.conftest import training


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
    (remove_score, r"unusable result .*, cases.case3.classes.rim – expected 'hd95_mm', found none"),
    (lambda m: m.update(cases={}), "unusable result .*, cases – expected at least 1 entries, found {}"),
    (lambda m: m.pop("seconds_per_case"), "unusable result .*metrics.json – expected 'seconds_per_case', found none"),
    (lambda m: m.update(format="x"), "unusable result .*, format – expected dcd-metrics-1, found 'x'"),
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
    with pytest.raises(
        UserError, match=r"unreadable result .*metrics.json – .*found 'case2' twice – evaluate the run again"
    ):
        load_runs(list(map(str, pair)))


def test_not_json(pair):
    (pair[1] / "metrics.json").write_text("{", "utf-8")
    with pytest.raises(UserError, match=r"unreadable result .* – expected complete JSON, found Expecting"):
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


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda m: m["cases"]["case1"].update(classes=[]), "cases.case1.classes – expected an object, found []"),
        (
            lambda m: m["cases"]["case1"]["classes"]["rim"].update(dice=True),
            "classes.rim.dice – expected a number or n",
        ),
        (lambda m: m["cases"]["case1"]["classes"].pop("core"), "cases.case1.classes – expected 'core', found none"),
        (lambda m: m.update(class_names="rim"), "class_names – expected a list, found 'rim'"),
        (lambda m: m.update(parameters=float("nan")), "expected complete JSON, found Out of range float values"),
        (lambda m: m["summary"]["mean"].pop("dice"), "summary.mean – expected 'dice', found none"),
        (lambda m: m.update(environment="cpu"), "environment – expected an object, found 'cpu'"),
    ],
)
def test_metrics(edit, place, three_runs, tmp_path):
    metrics = read_json(three_runs[0] / "metrics.json")
    edit(metrics)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=re.escape(place)):
        read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"epochs": []}, "epochs – expected at least 1 entries, found []"),
        ({"epochs": [{"epoch": "1", "seconds": 1}]}, "epochs[0].epoch – expected a whole number, found '1'"),
        (
            {"epochs": [{"epoch": 1, "seconds": 1, "loss": [2]}]},
            "epochs[0].loss – expected a number or null, found [2]",
        ),
        ({"seconds": None}, "seconds – expected a number, found None"),
    ],
)
def test_a_training_record_spoils_no_report(change, place, three_runs, tmp_path, capsys):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in three_runs[:2]]
    (runs[0] / "training.json").write_text(json.dumps({**training(2, False), **change}))
    assert dcd(["compare", *map(str, runs), "--output", str(tmp_path / "report.html")]) == 1
    assert place in capsys.readouterr().err and not list(tmp_path.glob("report.*"))
    (runs[0] / "training.json").write_text(json.dumps(training(2, False)))
    assert read_training(runs[0] / "training.json")["epochs"][-1]["epoch"] == 2
