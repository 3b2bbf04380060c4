"""The folder MONAI Label reads."""

import json

import nibabel as nib
import numpy as np
from monai.transforms import LoadImage

from dcd_ext.data.nifti import save_nifti


def test_channels_become_one_file_that_monai_reads_like_the_list(command, prepared, tmp_path):
    folder = prepared("brats24")
    outcome = command("studies", folder, "--output", tmp_path / "studies")
    assert outcome.code == 0 and "7 images and 6 labels" in outcome.out
    content = json.loads((folder / "datalist.json").read_text())
    case = content["training"][0]
    load = LoadImage(ensure_channel_first=True)
    listed = load([folder / name for name in case["image"]])
    stacked = load(tmp_path / "studies" / f"{case['case']}.nii.gz")
    assert listed.shape[0] == 4
    np.testing.assert_array_equal(stacked, listed)
    np.testing.assert_array_equal(stacked.affine, listed.affine)


def test_one_channel_is_a_link_and_labels_are_the_server_s_own(command, prepared, tmp_path):
    folder = prepared("hippocampus")
    assert command("studies", folder / "datalist.json", "--output", tmp_path).code == 0
    case = json.loads((folder / "datalist.json").read_text())["training"][0]
    image, label = tmp_path / f"{case['case']}.nii.gz", tmp_path / "labels" / "final" / f"{case['case']}.nii.gz"
    assert image.resolve() == (folder / case["image"]).resolve()
    assert not label.is_symlink() and label.read_bytes() == (folder / case["label"]).read_bytes()
    label.write_bytes(b"drawn by hand")
    assert command("studies", folder, "--output", tmp_path).code == 0
    assert label.read_bytes() == b"drawn by hand"


def test_channels_on_two_grids_are_refused(command, tmp_path):
    save_nifti(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), np.eye(4))
    save_nifti(tmp_path / "b.nii.gz", np.zeros((4, 5, 6), np.int16), np.diag([1, 1, 2, 1]))
    content = {"training": [{"case": "x", "image": ["a.nii.gz", "b.nii.gz"]}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    outcome = command("studies", tmp_path, "--output", tmp_path / "studies")
    assert outcome.code == 1 and "channels do not fit on each other (spacing)" in outcome.err
    assert "b.nii.gz, compared with a.nii.gz – expected 1×1×1 mm, found 1×1×2 mm" in outcome.err
    assert not list((tmp_path / "studies").glob("*.nii.gz"))


def test_a_missing_image_or_list_is_a_user_error(command, tmp_path):
    assert "no data list" in command("studies", tmp_path, "--output", tmp_path / "s").err
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"case": "x", "image": "gone.nii.gz"}]}))
    assert "image not found" in command("studies", tmp_path, "--output", tmp_path / "s").err


def test_eight_byte_numbers_are_stored_in_four(command, tmp_path):
    save_nifti(tmp_path / "a.nii.gz", np.arange(120, dtype=np.float64).reshape(4, 5, 6), np.eye(4))
    content = {"training": [{"case": "x", "image": ["a.nii.gz", "a.nii.gz"]}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert command("studies", tmp_path, "--output", tmp_path / "studies").code == 0
    assert nib.load(tmp_path / "studies" / "x.nii.gz").get_data_dtype() == np.float32


def test_scaled_integers_keep_their_values(command, tmp_path):
    stored = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    stored.header.set_slope_inter(0.37, 5)
    nib.save(stored, tmp_path / "a.nii.gz")
    content = {"training": [{"case": "x", "image": ["a.nii.gz", "a.nii.gz"]}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert command("studies", tmp_path, "--output", tmp_path / "s").code == 0
    written = np.asarray(nib.load(tmp_path / "s" / "x.nii.gz").dataobj)
    expected = nib.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(written[..., 1], expected, rtol=1e-6)


def _write_set(folder, *cases):
    """Cases of one image each; the file of a case holds its number."""
    entries = []
    for number, case in enumerate(cases):
        for key in ("image", "label"):
            data = np.full((4, 5, 6), number, np.uint8)
            save_nifti(folder / f"{number}" / f"{key}.nii.gz", data, np.eye(4))
        entries.append({"case": case, "image": f"{number}/image.nii.gz", "label": f"{number}/label.nii.gz"})
    (folder / "datalist.json").write_text(json.dumps({"training": entries}))
    return folder


def test_two_cases_of_one_name_are_refused_before_anything_is_written(command, tmp_path):
    data = _write_set(tmp_path / "data", "a", "Knee", "knee")
    outcome = command("studies", data, "--output", tmp_path / "studies")
    assert outcome.code == 1 and "two cases of one name: Knee and knee" in outcome.err
    assert not (tmp_path / "studies").exists()


def test_an_image_of_another_set_keeps_its_label(command, tmp_path):
    """A label that is there is kept: beside another set's image of the same name it would be a wrong one."""
    first, second = (_write_set(tmp_path / name, "case_1") for name in ("first", "second"))
    for _ in range(2):
        assert command("studies", first, "--output", tmp_path / "studies").code == 0
    outcome = command("studies", second, "--output", tmp_path / "studies")
    assert outcome.code == 1 and "study of this name from elsewhere" in outcome.err
    assert (tmp_path / "studies" / "case_1.nii.gz").resolve() == first / "0" / "image.nii.gz"
