"""All methods in a row, by the bundle's commands."""

import json
import re

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles.method_runs import known_methods, method_files, proposed_weights, summary_table
from dcd_ext.commands import methods as run_methods
from dcd_ext.errors import UserError
from dcd_ext.tables import to_text
from tests.conftest import BUNDLES, SHORT, SMALL, read_json

BUNDLE = BUNDLES / "hippocampus_segmentation_student_dcd"


def test_config_files_of_a_method():
    train, cwd = (str(BUNDLE / "configs" / name) for name in ("train.json", "methods/cwd.json"))
    assert method_files(str(BUNDLE), ["dcd", "cwd"]) == {"dcd": [train], "cwd": [train, cwd]}
    assert list(method_files(str(BUNDLE), ["all"])) == known_methods(str(BUNDLE))
    with pytest.raises(UserError, match="unknown method – --methods – expected dcd, cwd, .* found cdw"):
        method_files(str(BUNDLE), ["cdw"])


def test_weights_come_from_a_calibration(tmp_path):
    path = tmp_path / "calibration.json"
    methods = {"cwd": {"all": {"proposed_weight": 2.5}, "encoder": {"proposed_weight": 7}}}
    path.write_text(json.dumps({"scope": "all", "methods": methods}))
    assert proposed_weights(str(path), ["cwd"]) == {"cwd": 2.5}
    with pytest.raises(UserError, match=r"no proposed weights – .* found KeyError: 'ifvd' – run dcd calibrate"):
        proposed_weights(str(path), ["cwd", "ifvd"])
    with pytest.raises(UserError, match="no proposed weights .* FileNotFoundError"):
        proposed_weights(str(tmp_path / "none.json"), ["cwd"])


def test_summary_shows_what_there_is():
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
def test_freekd_tunes_its_prompts_and_trains_in_processes_of_their_own(prepared, tmp_path, capsys):
    settings = {**SMALL["hippocampus"], **SHORT, "iterations_per_epoch": 1, "prompt_iterations": 2}
    config = {**read_json(BUNDLES / "hippocampus_segmentation_teacher/configs/inference.json"), **settings}
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    calibration = tmp_path / "calibration.json"
    calibration.write_text(json.dumps({"scope": "all", "methods": {"freekd": {"all": {"proposed_weight": 0.125}}}}))
    command = ["--bundle_root", BUNDLE, "--dataset_dir", prepared("hippocampus"), "--output", tmp_path / "out"]
    command += ["--teacher_ckpt", tmp_path / "model.pt", "--calibration", calibration, "--no-evaluation"]
    command += [part for key, value in settings.items() for part in (f"--{key}", value)]
    assert run_methods.main([*map(str, command), "--methods", "freekd"]) == 0
    assert re.search(r"\nfreekd +2 +[\d.]+ +0\.125 ", capsys.readouterr().out)
    folder = tmp_path / "out" / "freekd"
    assert (folder / "models" / "prompts.pt").is_file() and (folder / "models" / "model.pt").is_file()
    assert "segmentation loss of the masked teacher from" in (folder / "tune_prompts.log").read_text("utf-8")
    record = json.loads((tmp_path / "out" / "methods.json").read_text("utf-8"))["methods"]["freekd"]
    assert record["epochs"] == json.loads((folder / "training.json").read_text("utf-8"))["epochs"]


def test_a_command_that_fails_names_its_log(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.executable", "false")
    command = ["--bundle_root", str(BUNDLE), "--dataset_dir", "nowhere", "--output", str(tmp_path)]
    assert run_methods.main([*command, "--methods", "cwd"]) == 1
    log = tmp_path / "cwd" / "training.log"
    expected = f"error: training failed – {log} – expected exit code 0, found 1: nothing – read the log\n"
    assert capsys.readouterr().err == expected
