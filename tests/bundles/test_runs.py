"""Runs by the bundles' own commands: order, resume, two commands at once, failures."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from monai.bundle import ConfigParser

from dcd_ext.bundles import runs as runs_module
from dcd_ext.bundles.runs import Run, run_all
from dcd_ext.bundles.suites import suite_runs
from dcd_ext.commands.main import main as dcd
from dcd_ext.commands.methods import proposed_weights, summary_table
from dcd_ext.errors import UserError
from dcd_ext.tables import to_text
from tests.conftest import BUNDLES, SHORT, SMALL, read_json
from tests.report.conftest import one_case, write_run

BUNDLE = BUNDLES / "hippocampus_segmentation_student_dcd"
# stands for the interpreter: writes down what it is asked to do, and does what a bundle's command leaves behind
FAKE = """#!{python}
import json, os, pathlib, shutil, sys
run_id, words = sys.argv[4], sys.argv[5:]
options = dict(zip((w[2:] for w in words[::2]), words[1::2]))
folder = pathlib.Path(options["output_dir"])
with open({calls!r}, "a") as file:
    file.write(json.dumps([run_id, str(folder), options, os.environ["OMP_NUM_THREADS"]]) + "\\n")
if options.get("seed") == "13":
    sys.exit("error: unlucky")
if run_id == "evaluating":
    shutil.copyfile({metrics!r}, folder / "metrics.json")
else:
    pathlib.Path(options["ckpt_dir"]).mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint_last.pt").touch()
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Replace the interpreter that runs bundles; calling the fixture gives what it was asked so far."""
    path, fake = tmp_path / "calls", tmp_path / "python"
    metrics = write_run(tmp_path / "scored", one_case([0.5, 0.75])) / "metrics.json"
    fake.write_text(FAKE.format(python=sys.executable, calls=str(path), metrics=str(metrics)))
    fake.chmod(0o755)
    monkeypatch.setattr(runs_module.sys, "executable", str(fake))
    monkeypatch.setattr(runs_module, "_PAUSE", 0.02)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return lambda: [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _run(folder: Path, seed: int = 1, **settings) -> Run:
    train = str(BUNDLE / "configs" / "train.json")
    return Run(folder, str(BUNDLE), [train], {"seed": seed}, {"validation": "selection", "test": "test"}, **settings)


def test_a_run_is_trained_and_evaluated_once(calls, tmp_path: Path) -> None:
    run = _run(tmp_path / "a", scoring_options={"amp": False})
    assert run_all([run]) == {} and run.is_finished
    assert [(name, Path(folder).name) for name, folder, *_ in calls()] == [
        ("training", "a"),
        ("evaluating", "selection"),
        ("evaluating", "test"),
    ]
    training, evaluating = calls()[0][2], calls()[1][2]
    assert (training["seed"], training["resume"], training["ckpt_dir"]) == (
        "1",
        "auto",
        str(tmp_path / "a" / "models"),
    )
    assert (evaluating["section"], evaluating["amp"], evaluating["seed"]) == ("validation", "False", "1")
    assert evaluating["config_file"] == str([run.files[0], str(BUNDLE / "configs" / "evaluate.json")])
    assert run_all([run]) == {} and len(calls()) == 3


def test_an_interrupted_training_is_resumed(calls, tmp_path: Path) -> None:
    run = _run(tmp_path / "a")
    run_all([run])
    (run.folder / "models" / "trained").unlink()
    (run.folder / "test" / "metrics.json").unlink()
    run_all([run])
    assert [(name, o["resume"] if name == "training" else o["section"]) for name, _, o, _ in calls()[3:]] == [
        ("training", "auto"),
        ("evaluating", "test"),
    ]


def test_an_evaluation_with_failed_cases_is_repeated(calls, tmp_path: Path) -> None:
    run = _run(tmp_path / "a")
    run_all([run])
    (run.folder / "test" / "metrics.json").write_text(json.dumps({"failed": {"case": "cut.nii.gz – EOFError"}}))
    assert not run.is_finished
    run_all([run])
    assert [name for name, *_ in calls()[3:]] == ["evaluating"] and run.is_finished


def test_an_evaluation_of_which_half_was_copied_is_repeated(calls, tmp_path: Path) -> None:
    run = _run(tmp_path / "a")
    run_all([run])
    path = run.folder / "test" / "metrics.json"
    whole = path.read_text()
    for cut in (whole[: len(whole) // 2], "[]"):
        path.write_text(cut)
        assert not run.is_finished
        run_all([run])
        assert path.read_text() == whole
    assert [name for name, *_ in calls()[3:]] == ["evaluating", "evaluating"]


def test_an_option_that_was_refused_can_be_corrected(calls, tmp_path: Path) -> None:
    assert run_all([_run(tmp_path / "a", seed=13)])
    assert not run_all([_run(tmp_path / "a", seed=2)])
    assert [options["seed"] for _, _, options, _ in calls()] == ["13", "2", "2", "2"]


def test_other_options_are_another_run(calls, tmp_path: Path) -> None:
    run_all([_run(tmp_path / "a")])
    with pytest.raises(UserError, match=r"run with another seed – .*a – expected 2, found 1 – choose another --output"):
        run_all([_run(tmp_path / "a", seed=2)])


def test_jobs_divide_the_cores_unless_the_user_says_otherwise(calls, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runs_module, "cores", lambda: 7)
    run_all([_run(tmp_path / "a"), _run(tmp_path / "b")], jobs=2)
    assert {threads for *_, threads in calls()} == {"3"} and len(calls()) == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_all([_run(tmp_path / "c")], jobs=2)
    assert calls()[-1][-1] == "5"


def test_a_failure_stops_what_depends_on_it_and_nothing_else(calls, tmp_path: Path, caplog) -> None:
    teacher = _run(tmp_path / "teacher", seed=13)
    runs = [_run(tmp_path / "student", teacher=teacher.folder), teacher, _run(tmp_path / "plain")]
    errors = run_all(runs)
    log = tmp_path / "teacher" / "training.log"
    assert str(errors[teacher.folder]) == (
        f"training failed – {log} – expected exit code 0, found 1: error: unlucky – read the log"
    )
    assert str(errors[tmp_path / "student"]).startswith("no teacher – ") and len(errors) == 2
    assert runs[2].is_finished and f"training failed – {log}" in caplog.text


def test_students_wait_for_their_teacher(calls, tmp_path: Path) -> None:
    teacher = _run(tmp_path / "teacher")
    assert run_all([_run(tmp_path / "student", teacher=teacher.folder), teacher], jobs=2) == {}
    trainings = [Path(folder).name for name, folder, *_ in calls() if name == "training"]
    assert trainings == ["teacher", "student"]


def test_a_run_in_progress_is_left_to_the_other_command(calls, tmp_path: Path) -> None:
    """Its lock is taken: everything else is done first, and it is found finished once the other command is."""
    taken, free = _run(tmp_path / "taken"), _run(tmp_path / "free")
    taken.folder.mkdir()
    with FileLock(taken.folder / "lock", thread_local=False):
        thread = threading.Thread(target=run_all, args=([taken, free],))
        thread.start()
        while not free.is_finished:
            assert thread.is_alive()
        for file in ("models/trained", "selection/metrics.json", "test/metrics.json"):
            (taken.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (taken.folder / file).write_text("{}")
    thread.join()
    assert {Path(folder).parts[len(tmp_path.parts)] for _, folder, *_ in calls()} == {"free"}


def test_an_interruption_stops_the_processes(tmp_path: Path, monkeypatch) -> None:
    fake = tmp_path / "python"
    # a training that ends well when it is told to end; what comes after it must not begin
    fake.write_text("#!/bin/sh\ntrap 'exit 0' TERM\nsleep 600 &\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setattr(runs_module.sys, "executable", str(fake))

    def interrupt(*_: object) -> None:
        while not (tmp_path / "a" / "training.log").exists():
            time.sleep(0.01)
        time.sleep(1)  # the log is opened first, then the process starts
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "_wait", interrupt)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all([_run(tmp_path / "a")])
    assert time.monotonic() - start < 300 and not list(tmp_path.glob("a/*/metrics.json"))


SUITE = {
    "bundles": str(BUNDLES / "hippocampus_segmentation_{role}"),
    "dataset_dir": "data",
    "fold": 1,
    "score": ["selection", "test"],
    "options": {"amp": True},
    "teacher_seed": 7,
    "seeds": [1, 2],
    "students": {"r4": {}, "r8": {"reduction_factor": 8}},
    "methods": {
        "plain": {"role": "student"},
        "cwd": {"config": "cwd", "kd_weight": 3, "seeds": [1], "students": ["r8"]},
    },
}


def test_a_suite_is_students_by_methods_by_seeds_after_the_teacher() -> None:
    output = Path("out")
    teacher, *runs = suite_runs(SUITE, output)
    assert teacher.folder == output / "teacher" / "seed7" and teacher.options["seed"] == 7
    names = ["r4/plain/seed1", "r8/plain/seed1", "r8/cwd/seed1", "r4/plain/seed2", "r8/plain/seed2"]
    assert [r.folder.relative_to(output).as_posix() for r in runs] == names
    assert runs[2].options == {
        "amp": True,
        "dataset_dir": Path("data"),
        "fold": 1,
        "reduction_factor": 8,
        "kd_weight": 3,
        "seed": 1,
        "teacher_ckpt": output / "teacher" / "seed7" / "models" / "model.pt",
    }
    assert [Path(f).name for f in runs[2].files] == ["train.json", "cwd.json"]
    assert runs[2].teacher == teacher.folder and runs[0].teacher is None
    assert runs[2].scores == {"validation": "selection", "test": "test"}
    assert [r.folder for r in suite_runs(SUITE, output, methods=["plain"], seeds=[2])] == [
        output / n for n in names[3:]
    ]
    assert [r.folder for r in suite_runs(SUITE, output, ["r4"])] == [output / names[0], output / names[3]]


def test_a_suite_is_completed_by_the_command(calls, tmp_path: Path, capsys) -> None:
    path, output = tmp_path / "suite.json", tmp_path / "out"
    path.write_text(json.dumps(SUITE))
    assert dcd(["benchmark", str(path), "--output", str(output), "--methods", "cwd"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"2 of 2 runs in {output} are finished\nr4: fewer than two methods are finished")
    assert "\ncwd      0.5000  0.7500  0.6250\n" in printed
    assert (output / "r8" / "cwd" / "seed1" / "test" / "metrics.json").is_file()
    path.write_text(json.dumps({**SUITE, "seeds": [13]}))
    assert dcd(["benchmark", str(path), "--output", str(output), "--methods", "plain"]) == 1
    assert "error: 2 of 2 runs failed – " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"seeds": 3}, [], "unusable suite – .*json, seeds – expected a list, found 3"),
        ({"sedes": [1]}, [], "unusable suite – .*json – expected no further entry, found .*sedes"),
        (
            {"score": ["training"]},
            [],
            r"unusable suite – .*score\[0\] – expected one of selection, test, found 'training'",
        ),
        ({"bundles": "b_{rol}"}, [], "unusable suite – .*bundles – expected a path in which {role} stands for"),
        (
            {"methods": {"plain": "student"}},
            [],
            "unusable suite – .*methods.plain – expected an object, found 'student'",
        ),
        ({"students": {"../r4": {}}}, [], "unusable suite – .*students – expected a name that can be a folder's"),
        ({"methods": {"teacher": {}}}, [], "unusable suite – .*methods – expected a name .*other than teacher"),
        ({"seeds": [1, 1]}, [], "unusable suite – .*seeds – "),
        ({"options": {"fold": 2}}, [], "unusable suite – .*options – expected no entry that the suite has above"),
        (
            {"methods": {"a": {"seed": 2}}},
            [],
            "unusable suite – .*methods.a – expected no entry that the command itself",
        ),
        ({"bundles": "nowhere"}, [], "no such config – nowhere/configs/train.json"),
        ({}, ["--methods", "dcd"], "not in the suite's methods – --methods – expected plain, cwd, found dcd"),
        ({}, ["--students", "r2"], "not in the suite's students – --students – expected r4, r8, found r2"),
        ({}, ["--seeds", "3"], "not in the suite's seeds – --seeds – expected 1, 2, found 3"),
    ],
)
def test_unusable_suites(change: dict, options: list[str], message: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({**SUITE, **change}))
    assert dcd(["benchmark", str(path), "--output", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert re.match(f"error: {message}", error), error
    assert not (tmp_path / "out").exists()


def test_a_method_whose_seeds_the_suite_lacks_is_pointed_out(calls, tmp_path: Path, capsys, caplog) -> None:
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({**SUITE, "methods": {"plain": {"role": "student", "seeds": [1, 4]}}}))
    assert dcd(["benchmark", str(path), "--output", str(tmp_path / "out"), "--seeds", "2"]) == 0
    assert re.search("methods.plain.seeds – expected 1, 2, found 4 – correct it", caplog.text)


def test_weights_come_from_a_calibration(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    methods = {"cwd": {"all": {"proposed_weight": 2.5}, "encoder": {"proposed_weight": 7}}}
    path.write_text(json.dumps({"scope": "all", "methods": methods}))
    assert proposed_weights(str(path), ["cwd"]) == {"cwd": 2.5}
    with pytest.raises(
        UserError, match=r"no proposed weight – .* expected an entry 'ifvd', found none – run dcd calibrate"
    ):
        proposed_weights(str(path), ["cwd", "ifvd"])
    with pytest.raises(UserError, match="no calibration – .*none.json – expected a file, found none"):
        proposed_weights(str(tmp_path / "none.json"), ["cwd"])


def test_summary_shows_what_there_is() -> None:
    epochs = [{"loss": 1.0, "val_mean_dice": 0.5}, {"loss": 0.9, "seg_loss": 0.7, "kd_loss": 2e-6, "kd_weight": 1.0}]
    records = {
        "cwd": {"seconds": 3.0, "epochs": epochs, "mean_dice": 0.25},
        "dcd": {"seconds": 1.0, "epochs": epochs[:1]},
    }
    assert summary_table(records).rows == [
        ["cwd", "2", "1.5", "1", "2e-06", "0.7", "0.5000", "0.2500"],
        ["dcd", "1", "1.0", "–", "–", "1", "0.5000", "–"],
    ]
    assert "best validation Dice" in to_text(summary_table(records))


@pytest.mark.slow
def test_freekd_tunes_its_prompts_and_trains_in_processes_of_their_own(prepared, tmp_path: Path, capsys) -> None:
    settings = {**SMALL["hippocampus"], **SHORT, "iterations_per_epoch": 1, "prompt_iterations": 2}
    config = {**read_json(BUNDLES / "hippocampus_segmentation_teacher/configs/inference.json"), **settings}
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    calibration = tmp_path / "calibration.json"
    calibration.write_text(json.dumps({"scope": "all", "methods": {"freekd": {"all": {"proposed_weight": 0.125}}}}))
    command = ["methods", BUNDLE, "--dataset_dir", prepared("hippocampus"), "--output", tmp_path / "out"]
    command += ["--teacher_ckpt", tmp_path / "model.pt", "--calibration", calibration, "--no_evaluation"]
    command += [part for key, value in settings.items() for part in (f"--{key}", value)]
    assert dcd([*map(str, command), "--methods", "freekd"]) == 0
    assert re.search(r"\nfreekd +2 +[\d.]+ +0\.125 ", capsys.readouterr().out)
    folder = tmp_path / "out" / "freekd"
    assert (folder / "models" / "prompts.pt").is_file() and (folder / "models" / "model.pt").is_file()
    assert "segmentation loss of the masked teacher from" in (folder / "tune_prompts.log").read_text("utf-8")
    record = json.loads((tmp_path / "out" / "methods.json").read_text("utf-8"))["methods"]["freekd"]
    assert record["epochs"] == json.loads((folder / "training.json").read_text("utf-8"))["epochs"]


def test_a_command_that_fails_names_its_log(monkeypatch, tmp_path: Path, capsys, caplog) -> None:
    monkeypatch.setattr("sys.executable", "false")
    command = ["methods", str(BUNDLE), "--dataset_dir", "nowhere", "--output", str(tmp_path)]
    assert dcd([*command, "--methods", "cwd"]) == 1
    log = tmp_path / "cwd" / "training.log"
    assert f"training failed – {log} – expected exit code 0, found 1: nothing – read the log" in caplog.text
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: 1 of 1 runs failed – {tmp_path / 'cwd'} – ")
