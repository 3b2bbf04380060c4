"""Which images an inference takes."""

import json
import os
import sys

import pytest

from dcd_ext.errors import UserError
from dcd_ext.inference.inputs import check_image, check_paths, find_images, make_cases


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder; the directory above it is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("absolute", [False, True])
def test_images_of_every_kind_and_nothing_else(folder, absolute):
    images = ["-a.nii", "b.nii.gz", "c.mha", "d.nrrd", "e.mgz", "f.hdr", "g [1] #%,ü.NII.GZ", "link.nii"]
    fill(folder, *images[:-1], "f.img", "notes.txt", "._b.nii.gz", ".x/h.nii", "below/i.nii")
    (folder / "link.nii").symlink_to("nowhere")  # said to be missing later, not passed over
    assert find_images(str(folder) if absolute else "in") == sorted(images)
    cases = make_cases(find_images("in"), "in")
    assert all(os.path.lexists(case["image"]) for case in cases) and len({case["case"] for case in cases}) == 8


def test_subfolders_where_there_is_no_image_above(folder, caplog):
    fill(folder, "p1/s/t1.nii", "p2/s/t1.nii", "out/p1/p1_seg.nii.gz")
    (folder / "p1" / "up").symlink_to(folder)
    (folder / "p3").symlink_to("p2")
    fill(folder, "scan/000", "scan/001")
    for name in ("000", "001"):
        (folder / "scan" / name).write_bytes(bytes(128) + b"DICM")
    found = find_images("in", output_dir="in/out")
    assert found == ["p1/s/t1.nii", "p2/s/t1.nii", "scan"]
    assert [case["case"] for case in make_cases(found, "in")] == ["p1_s_t1", "p2_s_t1", "scan"]
    fill(folder, "a.nii")
    assert find_images("in") == ["a.nii"] and "4 images in subfolders are not used" in caplog.text


def test_a_folder_that_cannot_be_listed_is_told(folder, monkeypatch):
    fill(folder, "p1/a.nii", "p2/b.nii")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("p2"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="p2"):
        find_images("in")


def test_a_data_list_of_names_entries_and_channels(folder):
    content = {"test": ["a.nii", {"image": "../b.nii"}, {"image": ["c0.nii", str(folder / "c1.nii")]}]}
    (folder / "datalist.json").write_text("\ufeff" + json.dumps(content), "utf-8")  # as Windows' editors write it
    cases = make_cases(find_images("in", "in/datalist.json"), "in")
    assert [case["image"] for case in cases] == ["in/a.nii", "b.nii", ["in/c0.nii", str(folder / "c1.nii")]]


def test_torchrun_s_processes_share_the_cases(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append([case["case"] for case in make_cases(["p/x.nii", "q/x.nii", "r/x.nii"], ".")])
    assert shares == [["p", "r"], ["q"]]  # named by all, not by the share


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"test": [', "unreadable data list – .*datalist.json – expected JSON, found JSONDecodeError"),
        ("[]", "no data list"),
        ('{"test": []}', "no image – .*datalist.json"),
        ('{"test": [{"label": "a.nii"}]}', r"no image – datalist\[0\] – expected .*, found None"),
    ],
)
def test_a_data_list_that_is_none_is_one_line(folder, text, message):
    (folder / "datalist.json").write_text(text)
    with pytest.raises(UserError, match=message):
        make_cases(find_images("in", "in/datalist.json"), "in")


def test_nothing_to_segment_is_one_line(folder):
    fill(folder, "report.pdf", ".DS_Store")
    with pytest.raises(UserError, match="no image – in – .* found report.pdf – pass --dataset_dir"):
        find_images("in")
    with pytest.raises(UserError, match="no such folder – on – expected a folder of images"):
        find_images("on")


def test_results_among_the_images_are_refused(folder):
    fill(folder, "a.nii")
    with pytest.raises(UserError, match=r"results would lie among the images – in/\. – expected another folder"):
        find_images(str(folder), output_dir="in/.")


@pytest.mark.parametrize("value", [1999, 1e5, True, None, ("a", "b"), [2024]])
def test_a_path_that_reads_as_python_is_refused(value):
    with pytest.raises(UserError, match=r"no path – --output_dir – expected text, found .* starts with \./"):
        check_paths(output_dir=value)


@pytest.mark.parametrize(("arrived", "typed"), [("/data/x::2", "/data/x#2"), ("run", "run#2")])
def test_a_number_sign_is_refused_also_where_it_became_a_comment(arrived, typed, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--dataset_dir", typed])
    with pytest.raises(UserError, match=f"'#' in a path.* – --dataset_dir – .*found {typed} – rename"):
        check_paths(dataset_dir=arrived)
    check_paths(output_dir="/data/x [2], ü%$@;", ckpt_path="./2024")


def test_what_is_no_file_is_named(folder):
    os.mkfifo(folder / "pipe.nii")
    (folder / "loop.nii").symlink_to("loop.nii")
    (folder / "folder.nii.gz").mkdir()
    (folder / "empty.nii").touch()
    for name, found in (
        ("pipe.nii", "a device or a pipe"),
        ("loop.nii", "Too many levels of symbolic links"),
        ("folder.nii.gz", "none"),
        ("empty.nii", "an empty file"),
    ):
        with pytest.raises(UserError, match=f"{name} – expected .*, found {found}"):
            check_image(f"in/{name}")
