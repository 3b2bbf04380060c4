"""Series geometry against DICOM's equation C.7.6.2.1-1, written as a loop over voxels."""

import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dcd_ext.errors import UserError
from dcd_ext.inference.dicom import check_series
from deploy.dicom.geometry import series_grid, series_voxels

ROWS, COLUMNS, SLICES = 5, 7, 4
SPACING = (0.9, 0.4)  # between rows, between columns
THICKNESS = 3.0


class Slice(dict):
    """The few attributes of a pydicom dataset that are read."""

    __getattr__ = dict.__getitem__


@pytest.fixture
def slices():
    """An oblique series, files in random order."""
    axes = Rotation.from_euler("xyz", [12, -20, 33], degrees=True).as_matrix()
    origin = np.array([-40.0, 25.0, 110.0])
    made = [
        Slice(
            ImageOrientationPatient=[*axes[:, 0], *axes[:, 1]],
            ImagePositionPatient=list(origin + k * THICKNESS * axes[:, 2]),
            PixelSpacing=list(SPACING),
            Rows=ROWS,
            Columns=COLUMNS,
            InstanceNumber=k,
        )
        for k in range(SLICES)
    ]
    return [made[i] for i in (2, 0, 3, 1)]


def patient_position(dataset, row, column):
    """C.7.6.2.1-1: position of a voxel in LPS millimetres."""
    orientation, between_rows, between_columns = dataset.ImageOrientationPatient, *dataset.PixelSpacing
    return [
        dataset.ImagePositionPatient[i]
        + orientation[i] * between_columns * column
        + orientation[3 + i] * between_rows * row
        for i in range(3)
    ]


def test_every_voxel_lies_where_dicom_says(slices):
    ordered = check_series(slices, "x")
    assert [dataset.InstanceNumber for dataset in ordered] == [0, 1, 2, 3]
    grid = series_grid(ordered)
    assert grid.shape == (COLUMNS, ROWS, SLICES)
    np.testing.assert_allclose(grid.spacing, [SPACING[1], SPACING[0], THICKNESS])
    for k, dataset in enumerate(ordered):
        for row, column in [(0, 0), (ROWS - 1, 2), (3, COLUMNS - 1)]:
            left, posterior, superior = patient_position(dataset, row, column)
            world = grid.affine @ [column, row, k, 1]
            np.testing.assert_allclose(world[:3], [-left, -posterior, superior], atol=1e-9)


def test_a_missing_slice_is_noticed(slices):
    kept = [dataset for dataset in slices if dataset.InstanceNumber != 1]
    with pytest.raises(UserError, match=r"not evenly spaced – series T1, between slices 1 and 2 of 3 .*found 6.000 mm"):
        check_series(kept, "T1")


def test_a_slice_copied_twice_is_named_and_not_taken_for_a_gap(slices):
    message = (
        r"two slices at one place – series T1, slices 3 and 4 of 5 – expected 3.000 mm between slices, found 0.000"
    )
    with pytest.raises(UserError, match=message):
        check_series([*slices, slices[0]], "T1")


def test_slices_of_two_directions_are_refused(slices):
    slices[1]["ImageOrientationPatient"] = [1.0, 0, 0, 0, 1, 0]
    with pytest.raises(UserError, match="slices are not parallel – series scout – expected"):
        check_series(slices, "scout")


def test_one_slice_or_no_position_is_no_volume(slices):
    with pytest.raises(UserError, match="no volume – series x – expected two or more slices, found 1"):
        check_series(slices[:1], "x")
    del slices[0]["ImagePositionPatient"]
    with pytest.raises(UserError, match="slice without geometry – series x – expected ImagePosit"):
        check_series(slices, "x")


def test_slices_of_two_sizes_are_refused(slices):
    slices[2]["PixelSpacing"] = [0.9, 0.5]
    with pytest.raises(UserError, match="slices differ in size or pixel spacing – series x"):
        check_series(slices, "x")


class Undecodable:
    """A dataset whose pixels fail as pydicom's do."""

    def __init__(self, error):
        self.error = error

    @property
    def pixel_array(self):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("Transfer Syntax UID 1.2.3 is not supported"),
        RuntimeError("Unable to decode:\n  gdcm: nothing\n  pylibjpeg: nothing"),
        ValueError("The number of bytes of pixel data is less than expected"),
        AttributeError("The dataset has no 'Pixel Data'"),
        struct.error("unpack requires a buffer of 4 bytes"),
    ],
)
def test_pixels_that_cannot_be_decoded_are_a_user_error_of_one_line(error):
    with pytest.raises(UserError, match="pixels cannot be read – series T1, slice 2 of 2 – expected pixels") as caught:
        series_voxels([Slice(pixel_array=np.zeros((2, 2))), Undecodable(error)], "T1")
    assert f"found {type(error).__name__}: {str(error)[:10]}" in str(caught.value)
    assert "\n" not in str(caught.value) and "decompress it" in str(caught.value)


def test_a_bug_is_no_user_error():
    with pytest.raises(TypeError, match="a bug"):
        series_voxels([Undecodable(TypeError("a bug"))], "T1")
