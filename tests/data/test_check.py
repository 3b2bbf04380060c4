"""Every planted fault is found with the message shape, every harmless oddity passes, and no file is touched."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
from pathlib import Path

import pytest

from dcd_ext import io as io_module
from dcd_ext.commands.main import main as dcd
from dcd_ext.data import check as check_module
from dcd_ext.data.check_report import CHECKS
from tests.data.conftest import MESSAGE
from tests.data.faults import FAULTS, SILENT, Broken


@pytest.fixture(scope="session")
def _prepared(_phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    # spaces and letters outside ASCII, in every test of this file
    root = tmp_path_factory.mktemp("prepared") / "Daten für Köpfe 脳"
    shutil.copytree(_phantoms["brats24"], root / "original data")
    assert dcd(["prepare", "brats24", "--source", str(root / "original data"), "--output", str(root)]) == 0
    return root


@pytest.fixture
def broken(_prepared: Path, tmp_path: Path) -> Broken:
    return Broken(Path(shutil.copytree(_prepared, tmp_path / _prepared.name)))


def _check(command, broken: Broken, *arguments: object) -> tuple[int, dict]:
    before = {f: f.read_bytes() for f in broken.root.rglob("*") if f.is_file() and f.name != "check.json"}
    outcome = command("check", broken.root / "datalist.json", *arguments)
    assert {f: f.read_bytes() for f in before} == before, "a file was lost or changed"
    report = json.loads((broken.root / "check.json").read_text())
    for finding in report["findings"]:
        assert MESSAGE.match(finding["message"])
        assert finding["expected"] or finding["check"] in ("duplicate", "modality"), "only a copy has no comparison"
    assert all(finding["message"] in outcome.out for finding in report["findings"])
    assert outcome.code == (1 if report["errors"] else 0)
    return outcome.code, report


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(name: str, broken: Broken, command) -> None:
    plant, severity, check, text = FAULTS[name]
    plant(broken)
    _, report = _check(command, broken)
    hits = [f for f in report["findings"] if (f["severity"], f["check"]) == (severity, check) and text in f["message"]]
    assert hits, report["findings"]
    assert report["errors" if severity == "error" else "warnings"] >= 1


@pytest.mark.parametrize("name", SILENT)
def test_harmless_oddity_is_silent(name: str, broken: Broken, command) -> None:
    SILENT[name](broken)
    code, report = _check(command, broken)
    assert (code, report["findings"]) == (0, [])


def test_each_check_has_a_fault_that_triggers_it() -> None:
    assert set(CHECKS) - {check for _, _, check, _ in FAULTS.values()} == {"memory"}  # tested below
    assert len(FAULTS) >= 25


def test_one_fault_gives_one_finding_and_names_the_file(broken: Broken, command) -> None:
    FAULTS["LPS image, RAS label"][0](broken)
    _, report = _check(command, broken)
    [finding] = report["findings"]
    assert finding["case"] == "BraTS-GLI-00001-000" and "BraTS-GLI-00001-000-seg.nii.gz" in finding["where"]


def test_a_skipped_check_is_logged_and_recorded(broken: Broken, command, caplog: pytest.LogCaptureFixture) -> None:
    FAULTS["LPS image, RAS label"][0](broken)
    with caplog.at_level(logging.WARNING):
        code, report = _check(command, broken, "--skip", "orientation,affine", "empty")
    assert code == 0 and report["skipped"] == ["affine", "empty", "orientation"]
    assert "check skipped: orientation" in caplog.text


def test_unknown_check_name_is_one_line(broken: Broken, command) -> None:
    outcome = command("check", broken.root, "--skip", "geometri")
    assert outcome.code == 1 and MESSAGE.match(outcome.err.splitlines()[-1])
    assert "found geometri" in outcome.err


def test_a_cache_that_does_not_fit_is_a_warning_with_the_rate(
    broken: Broken, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "available_memory", lambda: 1_000_000)
    code, report = _check(command, broken)
    [finding] = report["findings"]
    assert code == 0 and finding["check"] == "memory"
    assert report["cache_bytes"] == 6 * 5 * 4 * 32 * 32 * 28  # cases × (4 channels + label) × float32
    assert "--cache_rate 0.23" in finding["message"]


def test_folder_in_place_of_the_file_and_a_second_json(broken: Broken, command, tmp_path: Path) -> None:
    outcome = command("check", broken.root, "--output", tmp_path / "report.json")
    assert outcome.code == 0
    assert (tmp_path / "report.json").read_text() == (broken.root / "check.json").read_text()


def test_unwritable_folder_only_warns(
    broken: Broken, command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(io_module.os, "replace", refuse)
    outcome = command("check", broken.root)
    assert outcome.code == 0 and "the check report is not stored" in caplog.text
    assert not (broken.root / "check.json").exists() and not list(broken.root.glob(".tmp*"))
    outcome = command("check", broken.root, "--output", broken.root / "report.json")
    assert outcome.code == 1 and "Read-only file system" in outcome.err


def test_the_report_is_written_whatever_the_terminal_can_show(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS["label 5 mm away"][0](broken)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert dcd(["check", str(broken.root)]) == 1
    printed = terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"affine differs" in printed and b"\\u2013" in printed
    assert json.loads((broken.root / "check.json").read_text())["errors"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "unreadable data list"),
        ("[]", "unusable data list"),
        ('{"training": {}}', "datalist.json, training – expected a list, found {}"),
        ('{"training": [], "test": []}', "empty data list"),
        ('{"training": ["a.nii.gz"]}', "training[0] – expected an object, found 'a.nii.gz'"),
        ('{"training": [{"fold": [1]}]}', "training[0].fold – expected a whole number, found [1]"),
        ('{"test": ["a.nii.gz"], "folds": "five"}', "folds – expected a whole number, found 'five'"),
        ('{"test": ["a.nii.gz"]}', "does not say what it contains"),
        (None, "no data list"),
    ],
)
def test_unusable_data_list_is_one_line(text: str | None, expected: str, command, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "datalist.json").write_text(text)
    outcome = command("check", tmp_path / "datalist.json")
    assert outcome.code == 1 and expected in outcome.err
    assert MESSAGE.match(outcome.err.splitlines()[-1])


def test_task_can_be_a_name_or_bundle_metadata(broken: Broken, command, tmp_path: Path) -> None:
    assert command("check", broken.root, "--task", "brats24").code == 0
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"channel_def": {"0": "a", "1": "b", "2": "c", "3": "d"}}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "x"}}},
        }
    }
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    outcome = command("check", broken.root, "--task", tmp_path / "metadata.json")
    assert outcome.code == 1 and "unexpected label values" in outcome.out
    outcome = command("check", broken.root, "--task", "brats19")
    assert outcome.code == 1 and "unknown task" in outcome.err


def test_uncompressed_and_multi_volume_files_pass(command, phantoms, tmp_path: Path) -> None:
    import nibabel as nib
    import numpy as np

    root = phantoms("msd")
    index = json.loads((root / "dataset.json").read_text())
    index["modality"] = {"0": "FLAIR", "1": "T1w"}
    for entry in (*index["training"], *({"image": name} for name in index["test"])):
        image = nib.load(root / entry["image"])
        data = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.stack([data, data**2], -1), image.affine), root / entry["image"])
    (root / "dataset.json").write_text(json.dumps(index))
    assert command("prepare", "msd", "--source", root, "--output", tmp_path / "out").code == 0
    outcome = command("check", tmp_path / "out")
    assert outcome.code == 0, outcome.out
    assert "7 cases: 0 errors, 0 warnings" in outcome.out
