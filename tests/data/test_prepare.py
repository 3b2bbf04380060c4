"""Preparation of BraTS and Decathlon data: what the data list says, that MONAI reads it, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from dcd_ext import io as io_module
from dcd_ext.data.datalist import portable_path
from dcd_ext.data.layouts import find_brats
from dcd_ext.data.nifti import save_nifti


def _load(output: Path) -> dict:
    return json.loads((output / "datalist.json").read_text())


def test_brats_list_has_four_channels_subjects_folds_and_test_cases(command, phantoms, tmp_path: Path) -> None:
    outcome = command("prepare", "brats24", "--source", phantoms("brats24"), "--output", tmp_path / "out")
    content = _load(tmp_path / "out")
    assert content["modality"] == {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"}
    assert content["labels"] == {"0": "background", "1": "NETC", "2": "SNFH", "3": "ET", "4": "RC"}
    assert (content["task"], content["folds"], content["seed"]) == ("brats24", 5, 12345)
    entry = content["training"][3]
    assert (entry["case"], entry["subject"]) == ("BraTS-GLI-00003-001", "BraTS-GLI-00003")
    assert [Path(f).name[20:23] for f in entry["image"]] == ["t1n", "t1c", "t2w", "t2f"]
    folds = defaultdict(set)
    for item in content["training"]:
        folds[item["subject"]].add(item["fold"])
        assert not [key for key in item if key.startswith(("image_", "label_"))]
    assert all(len(used) == 1 for used in folds.values()) and len(folds) == 5
    assert [item["case"] for item in content["test"]] == ["BraTS-GLI-00006-000"] and "label" not in content["test"][0]
    assert "6 labelled cases, 1 without label, 6 subjects" in outcome.out
    assert "t2f       1×1×1 mm (7)" in outcome.out and "ET" in outcome.out


def test_same_command_gives_the_same_bytes(command, phantoms, tmp_path: Path) -> None:
    source = phantoms("brats24")
    texts = set()
    for _ in range(2):
        command("prepare", "brats24", "--source", source, "--output", tmp_path / "out")
        texts.add((tmp_path / "out" / "datalist.json").read_bytes())
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("where", "output", "relative"),
    [("out/raw", "out", True), ("source", "out", True), ("deep/source", "out", True), ("source", "deep/out", False)],
)
def test_monai_resolves_relative_and_absolute_paths(
    where: str, output: str, relative: bool, command, phantoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    source = Path(shutil.move(phantoms("msd", "moving"), tmp_path / where))
    monkeypatch.chdir(tmp_path)
    assert command("prepare", "msd", "--source", where, "--output", output).code == 0
    assert _load(tmp_path / output)["training"][0]["image"].startswith("/") is not relative
    monkeypatch.chdir("/")
    out = tmp_path / output
    for section in ("training", "test"):
        for item in load_decathlon_datalist(out / "datalist.json", True, section, base_dir=out):
            assert Path(item["image"]).is_file() and source in Path(item["image"]).parents
            assert item["case"] == Path(item["image"]).name.removesuffix(".nii.gz")  # not turned into a path


def test_output_reached_through_a_link_keeps_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "image.nii").write_text("")
    assert portable_path(tmp_path / "image.nii", tmp_path / "real") == "../image.nii"
    assert portable_path(tmp_path / "image.nii", tmp_path / "link") == str(tmp_path / "image.nii")


def test_preparing_copies_and_changes_nothing(command, phantoms, tmp_path: Path) -> None:
    source = phantoms("brats24")
    before = {f: f.read_bytes() for f in source.rglob("*.nii.gz")}
    command("prepare", "brats24", "--source", source, "--output", tmp_path / "out")
    assert {f: f.read_bytes() for f in source.rglob("*.nii.gz")} == before
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["datalist.json"]


def test_cases_are_found_at_any_depth_and_hidden_files_do_not_count(command, phantoms, tmp_path: Path) -> None:
    source = phantoms("brats24")
    (source / "training_data1_v2").mkdir()
    shutil.move(source / "BraTS-GLI-00001-000", source / "training_data1_v2")
    (source / "BraTS-GLI-00002-000" / "._BraTS-GLI-00002-000-t1c.nii.gz").write_text("")
    assert command("prepare", "brats24", "--source", source, "--output", tmp_path / "out").code == 0
    assert len(_load(tmp_path / "out")["training"]) == 6


def test_linked_sites_are_searched_and_a_folder_that_cannot_be_listed_is_told(
    phantoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, source = phantoms("brats24"), tmp_path / "cohort"
    (source / "site_b").mkdir(parents=True)
    shutil.move(whole / "BraTS-GLI-00001-000", source / "site_b")
    (source / "site_a").symlink_to(whole)
    (source / "site_b" / "up").symlink_to(source)
    assert len(find_brats(source)) == len(find_brats(whole)) + 1
    listed, refused = os.scandir, PermissionError(13, "Permission denied", "site_b")
    monkeypatch.setattr(os, "scandir", lambda path: _raise(refused) if "site_b" in str(path) else listed(path))
    with pytest.raises(PermissionError):
        find_brats(source)


def _raise(error: Exception) -> Any:
    raise error


def _remove(pattern: str):
    return lambda source: next(source.rglob(pattern)).unlink()


def _second_t1c(source: Path) -> None:
    file = next(source.rglob("*00001-000-t1c.nii.gz"))
    shutil.copy(file, file.with_name("old-t1c.nii.gz"))


def _same_case(source: Path) -> None:
    shutil.copytree(source / "BraTS-GLI-00002-000", source / "additional" / "BraTS-GLI-00002-000")


def _older_layout(source: Path) -> None:
    for number, folder in enumerate(sorted(source.iterdir())):
        folder.rename(source / f"BraTS2021_{number:05d}")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_remove("*00001-000-t2f.nii.gz"), "case BraTS-GLI-00001-000: no t2f"),
        (_second_t1c, "more than one t1c"),
        (_same_case, "duplicate case BraTS-GLI-00002-000"),
        (_older_layout, "found BraTS2021_00000, BraTS2021_00001, BraTS2021_00002 and 4 more"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_incomplete_brats_data_is_one_line(change, text: str, command, phantoms, tmp_path: Path) -> None:
    source = phantoms("brats24")
    change(source)
    outcome = command("prepare", "brats24", "--source", source, "--output", tmp_path / "out")
    assert outcome.code == 1 and text in outcome.err
    assert not (tmp_path / "out" / "datalist.json").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_remove("dataset.json"), "no Decathlon index – "),
        (_remove("hippocampus_002.nii.gz"), "a file of dataset.json is missing"),
        (lambda source: (source / "dataset.json").write_text("{}"), "expected an entry 'training', found none"),
        (
            lambda source: (source / "dataset.json").write_text(
                '{"training": [], "modality": {"a": "MRI"}, "labels": {}}'
            ),
            "dataset.json, modality – expected numbers as names, such as \"0\", found 'a'",
        ),
    ],
)
def test_incomplete_decathlon_data_is_one_line(change, text: str, command, phantoms, tmp_path: Path) -> None:
    source = phantoms("msd")
    change(source)
    outcome = command("prepare", "msd", "--source", source, "--output", tmp_path / "out")
    assert outcome.code == 1 and text in outcome.err


def test_output_that_would_turn_case_names_into_paths_is_refused(command, phantoms) -> None:
    source = phantoms("brats24")
    outcome = command("prepare", "brats24", "--source", source, "--output", source)
    assert outcome.code == 1 and "a folder named as a case" in outcome.err


def test_read_only_output_is_one_line_and_leaves_no_rest(
    command, phantoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = phantoms("msd"), tmp_path / "out"
    command("prepare", "msd", "--source", source, "--output", out)
    before = (out / "datalist.json").read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(io_module.os, "replace", refuse)
    outcome = command("prepare", "msd", "--source", source, "--output", out, "--seed", "1")
    assert outcome.code == 1 and "found Read-only file system" in outcome.err
    assert (out / "datalist.json").read_bytes() == before and len(list(out.iterdir())) == 1


def test_an_unreadable_label_is_named_and_left_to_the_check(command, phantoms, tmp_path: Path) -> None:
    source = phantoms("msd")
    (source / "labelsTr" / "hippocampus_001.nii.gz").write_bytes(b"broken")
    outcome = command("prepare", "msd", "--source", source, "--output", tmp_path / "out")
    assert outcome.code == 0 and "unreadable: hippocampus_001" in outcome.out
    assert command("check", tmp_path / "out").code == 1


def test_download_offline_is_one_line(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Error processing URL:\nname resolution failed")

    monkeypatch.setattr("monai.apps.download_and_extract", refuse)
    outcome = command("prepare", "msd", "--download", "Task04_Hippocampus", "--output", tmp_path)
    assert outcome.code == 1 and "fetch it from medicaldecathlon.com" in outcome.err
    assert "MD5 9d24dba78a72977dbd1d2e110310f31b" in outcome.err
    outcome = command("prepare", "msd", "--download", "Task44_Knee", "--output", tmp_path)
    assert outcome.code == 1 and "unknown Decathlon task" in outcome.err


def test_a_wrong_checksum_is_refused(command, tmp_path: Path) -> None:
    (tmp_path / "Task04_Hippocampus.tar").write_bytes(b"not the archive")
    outcome = command("prepare", "msd", "--download", "Task04_Hippocampus", "--output", tmp_path)
    assert outcome.code == 1 and "cannot download the data" in outcome.err


def test_an_unpacked_download_is_used_without_a_network(command, phantoms, tmp_path: Path) -> None:
    phantoms("msd", "Task04_Hippocampus")
    assert command("prepare", "msd", "--download", "Task04_Hippocampus", "--output", tmp_path).code == 0
    assert _load(tmp_path)["training"][0]["image"] == "Task04_Hippocampus/imagesTr/hippocampus_001.nii.gz"


def test_no_source_is_one_line(command, tmp_path: Path) -> None:
    outcome = command("prepare", "msd", "--output", tmp_path / "out")
    assert outcome.code == 1 and "--source" in outcome.err


def test_cases_whose_files_have_one_name_are_told_apart_by_their_folders(command, tmp_path: Path) -> None:
    entries = []
    for patient in ("anna", "ben", "cleo"):
        pair = {}
        for key, name in (("image", "flair.nii"), ("label", "mask.nii")):
            file = tmp_path / "raw" / "scans" / patient / "ses-1" / name
            save_nifti(file, np.zeros((2, 3, 4), np.uint8), np.eye(4))
            pair[key] = f"./scans/{patient}/ses-1/{name}"
        entries.append(pair)
    index = {"modality": {"0": "FLAIR"}, "labels": {"0": "background", "1": "lesion"}, "training": entries, "test": []}
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(index))
    options = ["prepare", "msd", "--source", tmp_path / "raw", "--output", tmp_path / "out"]
    assert command(*options, "--folds", "3").code == 0
    training = _load(tmp_path / "out")["training"]
    assert [item["case"] for item in training] == [item["subject"] for item in training] == ["anna", "ben", "cleo"]
    assert sorted(item["fold"] for item in training) == [0, 1, 2]
    index["training"].append(entries[0])
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(index))
    outcome = command(*options)
    assert outcome.code == 1 and "image listed twice" in outcome.err


def test_a_fold_becomes_the_test_part_and_a_share_is_trained_on(command, phantoms, tmp_path: Path) -> None:
    """Subjects stay together; what is left out of training is in no part; the same command gives the same bytes."""
    common = ["prepare", "brats24", "--source", phantoms("brats24"), "--folds", "3", "--output"]
    parts = ["--test_fold", "2", "--selection_fold", "0", "--training_share", "0.6"]
    lists = {}
    for name, options in {"all": [], "full": parts[:2], "part": parts, "again": parts}.items():
        assert command(*common, tmp_path / name, *options).code == 0
        lists[name] = _load(tmp_path / name)
    everything, full, part = lists["all"], lists["full"], lists["part"]
    assert {c["case"] for c in full["test"]} == {c["case"] for c in everything["training"] if c["fold"] == 2}
    assert all("label" in c and "fold" not in c for c in full["test"])
    assert full["training"] == [c for c in everything["training"] if c["fold"] != 2]
    subjects = [{c["subject"] for c in full[key]} for key in ("training", "test")]
    assert not subjects[0] & subjects[1] and full["numTest"] == len(full["test"])
    selection, trained = ([c for c in part["training"] if (c["fold"] == 0) == chosen] for chosen in (True, False))
    assert selection == [c for c in full["training"] if c["fold"] == 0]
    assert len(trained) == int(0.6 * (len(full["training"]) - len(selection))) and part["test"] == full["test"]
    assert all(c in full["training"] for c in trained) and part["numTraining"] == len(part["training"])
    assert lists["again"] == part
    for seed in range(4):  # the share is drawn with the seed of the folds
        for name, options in {"full": parts[:2], "part": parts}.items():
            command(*common, tmp_path / f"{name}{seed}", *options, "--seed", seed)
        drawn = [c["case"] for c in _load(tmp_path / f"full{seed}")["training"] if c["fold"] != 0]
        random.Random(seed).shuffle(drawn)
        kept = {c["case"] for c in _load(tmp_path / f"part{seed}")["training"] if c["fold"] != 0}
        assert kept == set(drawn[: len(kept)])
    # the fold that became the test part is not missed
    checked = command("check", tmp_path / "full")
    assert checked.code == 0 and "empty folds" not in checked.out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--test_fold", "9"],
            "a part without a case – --test_fold – expected one of the folds [0, 1, 2, 3, 4], found 0",
        ),
        (
            ["--folds", "2", "--test_fold", "0", "--selection_fold", "1", "--training_share", "0.5"],
            "--selection_fold – ",
        ),
        (["--training_share", "1.5"], "no share – --training_share – expected more than 0, less than 1, found 1.5"),
        (["--training_share", "nan"], "no share – --training_share – expected more than 0, less than 1, found nan"),
    ],
)
def test_parts_that_would_be_empty_are_one_line(options: list, text: str, command, phantoms, tmp_path: Path) -> None:
    outcome = command("prepare", "brats24", "--source", phantoms("brats24"), "--output", tmp_path / "out", *options)
    assert outcome.code == 1 and text in outcome.err and not (tmp_path / "out" / "datalist.json").exists()
