"""Names of cases: readable where they can be, different always."""

import pytest

from dcd_ext.errors import UserError
from dcd_ext.inference.names import case_names, refuse_collisions, split_suffix


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["in/a.nii.gz", "elsewhere/b.mha"], ["a", "b"]),
        (["p1/t1.nii.gz", "p2/t1.nii.gz"], ["p1", "p2"]),
        (["sub-01/anat/T1.nii", "sub-01/anat/T2.nii", "sub-02/anat/T1.nii"], ["sub-01_T1", "sub-01_T2", "sub-02_T1"]),
        (["x/1/scan.nrrd", "x/2/scan.nrrd", "scan.nrrd"], ["x_1_scan", "x_2_scan", "scan"]),
        (["1.2.840.11", "1.2.840.12"], ["1.2.840.11", "1.2.840.12"]),  # folders of DICOM
        (["d/brain.nii.gz", "d/brain.nii", "d/other.nii"], ["brain_nii_gz", "brain_nii", "other"]),
        (["d/T1.MGZ", "d/v1.2.nii"], ["T1", "v1.2"]),
        (["only.nii.gz"], ["only"]),
        ([], []),
    ],
)
def test_names_say_what_differs(files, names):
    assert case_names(files) == names


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["d/a.nii", "d/a.nii"], "image listed twice – .*/d/a.nii – remove"),
        (["d/Head.nii", "d/head.nii"], "two cases of one name: Head and head – .*/d/Head.nii and .*/d/head.nii"),
        (["d/e\u0301.nii", "d/\u00e9.nii"], "two cases of one name"),
        (["a_b/c.nii", "a/b_c.nii", "a/c.nii"], "two cases of one name: a_b_c"),
    ],
)
def test_what_would_overwrite_each_other_somewhere_is_refused(files, message):
    with pytest.raises(UserError, match=message):
        case_names(files)


def test_a_name_that_is_a_path_becomes_a_file_s_name():
    with pytest.raises(UserError, match="two cases of one name: site/7 and site_7"):
        refuse_collisions(["site/7", "site_7"], ["a.nii", "b.nii"])


def test_only_suffixes_of_images_are_cut_off():
    assert [split_suffix(n)[0] for n in ("a.nii.gz", "a.b.Nii", "7.3.1", ".nii")] == ["a", "a.b", "7.3.1", ".nii"]
