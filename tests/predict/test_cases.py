"""What is found below files, folders and data lists, and what its label map is called."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dcd_ext.errors import UserError
from dcd_ext.predict.inputs import find_inputs
from dcd_ext.predict.runtime import PredictError, find_cases, is_nifti

BRATS = ["t1n", "t1c", "t2w", "t2f"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path, channels: list[str]) -> dict[str, list[str]]:
    return {c.name: [str(f.relative_to(root)) for f in c.files] for c in find_inputs([root], channels)}


def test_every_readable_file_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "p1/t1.nii.gz", "p2/t1.nii.gz", "b.nii", "c.mha", "d.nhdr", "._b.nii", ".hidden/d.nii", "notes.txt")
    assert found(tmp_path, ["T1"]) == {
        "b": ["b.nii"],
        "c": ["c.mha"],
        "d": ["d.nhdr"],
        "p1/t1": ["p1/t1.nii.gz"],
        "p2/t1": ["p2/t1.nii.gz"],
    }


@pytest.mark.parametrize(
    ("names", "case"),
    [
        ([f"GLI-7-{c}.nii.gz" for c in BRATS], "GLI-7"),
        ([f"GLI-7_{i:04}.nii.gz" for i in range(4)], "GLI-7"),
        ([f"p7/{c.upper()}.nii" for c in BRATS], "p7"),
        ([f"p7/day 1/x_{c}.nii" for c in BRATS], "p7/day 1/x"),
    ],
)
def test_channels_by_name_or_number(names: list[str], case: str, tmp_path: Path) -> None:
    touch(tmp_path, *reversed(names))
    assert found(tmp_path, BRATS) == {case: names}


def test_missing_channel_is_the_case_s_problem(tmp_path: Path) -> None:
    touch(tmp_path, "a_t1n.nii", "a_t1c.nii", "a_t2f.nii", *(f"b_{c}.nii" for c in BRATS))
    problems = {case.name: case.problem for case in find_inputs([tmp_path], BRATS)}
    assert problems == {"a": "no file for channel t2w", "b": ""}


def test_files_in_channel_order_are_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "z.nii", "y.nii.gz")
    (case,) = find_inputs([tmp_path / "z.nii", tmp_path / "y.nii.gz"], ["FLAIR", "DWI"])
    assert (case.name, [f.name for f in case.files]) == ("z", ["z.nii", "y.nii.gz"])


def test_test_entries_of_a_data_list(tmp_path: Path) -> None:
    entries = [{"image": ["i/a0.nii", "i/a1.nii"], "case": "first"}, {"image": ["i/b0.nii", "i/b1.nii"]}]
    (tmp_path / "datalist.json").write_text(json.dumps({"test": entries, "training": [{"image": "no"}]}))
    assert found(tmp_path, ["A", "B"]) == {"first": ["i/a0.nii", "i/a1.nii"], "b0": ["i/b0.nii", "i/b1.nii"]}


def test_a_listed_name_is_no_path(tmp_path: Path) -> None:
    entries = [{"image": f"{n}.nii", "case": case} for n, case in enumerate(("../../up", "/etc/x", "a\\b", "s/1"))]
    (tmp_path / "datalist.json").write_text(json.dumps({"test": entries}))
    assert list(found(tmp_path, ["T1"])) == [".._.._up", "_etc_x", "a_b", "s_1"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"test": 3}', '{"test": [{"case": "a"}]}', '{"test": [[]]}', '{"test": [{"image": 1}]}']
)
def test_an_unusable_data_list_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(UserError, match=r"^unusable data list – \S*datalist.json – .* – prepare the data again$"):
        found(tmp_path, ["T1"])


def test_a_folder_of_dicom_is_one_image(tmp_path: Path) -> None:
    for folder in ("1.2.840.99", "p/1.2.840.100"):
        touch(tmp_path, f"{folder}/IM1", f"{folder}/IM2")
        for file in (tmp_path / folder).iterdir():
            file.write_bytes(bytes(128) + b"DICM")
    assert found(tmp_path, ["T1"]) == {"1.2.840.99": ["1.2.840.99"], "p/1.2.840.100": ["p/1.2.840.100"]}
    (case,) = find_inputs([tmp_path / "1.2.840.99"], ["T1"])
    assert (case.name, case.files) == ("1.2.840.99", (tmp_path / "1.2.840.99",))


def test_results_are_not_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "masks/a_seg.nii.gz")
    assert [case.name for case in find_inputs([tmp_path], ["T1"], tmp_path / "masks")] == ["a"]
    # nor are those of another network in another folder, or beside the images
    touch(tmp_path, "masks/.dcd_predict/network", "masks/p/b_seg.nii.gz", "p1/c.nii", "p1/c_seg.nii.gz")
    touch(tmp_path, "p1/.dcd_predict/network", "p2/d_seg.nii.gz")
    assert sorted(found(tmp_path, ["T1"])) == ["a", "p1/c", "p2/d_seg"]
    with pytest.raises(UserError, match="no image – .* – expected images outside of the output folder"):
        find_inputs([tmp_path], ["T1"], tmp_path)


def test_links_to_folders_are_followed_but_into_no_folder_twice(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/t1.nii", "cohort/p1/t1.nii")
    (tmp_path / "cohort" / "p0").symlink_to("../elsewhere")
    (tmp_path / "cohort" / "latest").symlink_to("p1")
    (tmp_path / "cohort" / "p1" / "loop").symlink_to("..")
    assert sorted(found(tmp_path / "cohort", ["T1"])) == ["p0/t1", "p1/t1"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "p1/a.nii", "p2/b.nii")
    listed = os.scandir
    refuse = PermissionError(13, "Permission denied", str(tmp_path / "p2"))

    def scandir(path: str) -> Any:
        if str(path).endswith("p2"):
            raise refuse
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PredictError, match="folder cannot be listed – .*p2 – Permission denied"):
        find_cases([tmp_path], ["T1"], is_nifti)


@pytest.mark.parametrize(
    ("names", "inputs", "message"),
    [
        ([], ["nowhere"], "no such input"),
        (["d/a.txt"], ["d"], "no image"),
        (["x/a.nii", "y/a.nii.gz"], ["x", "y"], "two cases with one name"),
        (["x/a.nii", "x/a.mha"], ["x"], "two files with one name – .*a.mha, .*a.nii – "),
        (["x/a.nii.gz", "x/a_0000.nii.gz"], ["x"], "two files with one name"),
        (["x/Head.nii", "y/head.nii"], ["x", "y"], "two cases with one name"),
    ],
)
def test_errors_are_one_line(names: list[str], inputs: list[str], message: str, tmp_path: Path) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=message):
        find_inputs([tmp_path / name for name in inputs], ["T1"])
