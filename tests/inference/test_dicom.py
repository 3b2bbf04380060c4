"""DICOM folders: what is not one evenly spaced volume is refused; headers are read by ITK."""

import shutil

import numpy as np
import pytest

from dcd_ext.errors import UserError
from dcd_ext.inference.dicom import check_series, is_dicom, read_series

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # SWIG's types, while ITK loads


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Two series of six slices on one oblique grid. Not to be changed."""
    from tests.dicom_series import write_series

    root, rng = tmp_path_factory.mktemp("dicom"), np.random.default_rng(0)
    for number, name in enumerate(("FLAIR", "T2"), 1):
        write_series(root / name, rng.integers(0, 99, (8, 7, 6)).astype(np.int16), name, number)
    return root


@pytest.fixture
def copy(series, tmp_path):
    """The first series, to be damaged."""
    return shutil.copytree(series / "FLAIR", tmp_path / "1.2.3")


def check(folder):
    return check_series(read_series(folder), folder)


def test_slices_are_ordered_by_place(copy):
    (copy / "000001.dcm").rename(copy / "zz")  # neither by name nor by suffix
    (copy / "readme.txt").write_text("not DICOM")
    positions = [float(header["ImagePositionPatient"].split("\\")[2]) for header in check(copy)]
    assert len(positions) == 6 and positions == sorted(positions)
    assert is_dicom(copy / "zz") and not is_dicom(copy / "readme.txt")


def test_two_series_in_one_folder(copy, series):
    for file in (series / "T2").iterdir():
        shutil.copy(file, copy / f"b{file.name}")
    with pytest.raises(UserError, match="several series – .* – expected one series, found 'FLAIR', 'T2' – move each"):
        check(copy)


def test_a_missing_slice(copy):
    (copy / "000005.dcm").unlink()
    message = "not evenly spaced – series .*, between slices 4 and 5 of 5 – expected 5.000 mm, found 10.000 mm"
    with pytest.raises(UserError, match=message):
        check(copy)


def test_a_slice_copied_twice(copy):
    shutil.copy(copy / "000002.dcm", copy / "again.dcm")
    with pytest.raises(UserError, match="two slices at one place – series .*, slices 2 and 3 of 7"):
        check(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImageOrientationPatient": [0.0, 1, 0, 0, 0, 1]}, "slices are not parallel"),
        ({"PixelSpacing": [1.0, 1.5]}, "slices differ in size or pixel spacing"),
        ({"Rows": 5.0}, "slices differ in size or pixel spacing"),
        ({"Rows": "5.0"}, "slices differ in size or pixel spacing"),
    ],
)
def test_slices_that_differ(series, change, message):
    headers = read_series(series / "FLAIR")
    headers[3].update(change)
    with pytest.raises(UserError, match=f"{message} – series scout"):
        check_series(headers, "scout")


def test_one_slice_is_no_volume_but_one_file_with_frames_may_be(series):
    header = read_series(series / "FLAIR" / "000001.dcm")
    with pytest.raises(UserError, match="no volume – series x – expected two or more slices, found 1"):
        check_series(header, "x")
    header[0]["NumberOfFrames"] = 20.0
    assert check_series(header, "x") == header


def test_a_folder_without_dicom(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no image – .* – expected DICOM files in the folder, found none"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ImagePositionPatient", [0, 0, float("nan")]),
        ("ImagePositionPatient", [0, 4]),
        ("PixelSpacing", 1.5),
        ("Rows", [8, 8]),
        ("ImageOrientationPatient", "1/0/0"),
        ("Columns", float("inf")),
    ],
)
def test_a_header_whose_geometry_is_no_geometry(copy, key, value):
    headers = read_series(copy)
    headers[3][key] = value
    with pytest.raises(UserError, match=f"slice without geometry – series .* – expected {key}, found"):
        check_series(headers, copy)
