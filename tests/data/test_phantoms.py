"""Phantoms: reproducible to the byte, in the published layouts, with every class and with thin and small parts."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from dcd_ext.data import phantoms as phantoms_module
from dcd_ext.data.phantom_anatomy import ET, GREY, NETC, RC, SNFH, WHITE, draw_brain, smooth_field
from dcd_ext.data.phantoms import LAYOUTS, PhantomSpec, brats_case_names, make_brats_case, write_phantoms

SHAPE = (48, 48, 40)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def _spec(folder: Path, layout: str, seed: int = 0) -> PhantomSpec:
    return PhantomSpec(folder, layout, cases=8, shape=(24, 24, 24), seed=seed, flair_spacing=(2.0, 2.0, 6.0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_seed_gives_the_same_bytes_whatever_was_drawn_before(layout: str, tmp_path: Path) -> None:
    write_phantoms(_spec(tmp_path / "a", layout), workers=1)
    for index in reversed(range(8)):
        phantoms_module._write_case((_spec(tmp_path / "b", layout), index))
    first, backwards = _bytes(tmp_path / "a"), _bytes(tmp_path / "b")
    assert first | backwards == first and len(backwards) >= 16
    write_phantoms(_spec(tmp_path / "c", layout, seed=1), workers=1)
    other = _bytes(tmp_path / "c")
    assert first.keys() == other.keys() and not {n for n in backwards if first[n] == other[n]}


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    write_phantoms(_spec(tmp_path / "a", "msd"), workers=1)
    write_phantoms(_spec(tmp_path / "b", "msd"), workers=2)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_brats_layout_and_affine_are_those_of_the_published_case(phantoms) -> None:
    root = phantoms("brats24")
    folder = root / "BraTS-GLI-00003-001"
    names = sorted(f.name for f in folder.iterdir())
    assert names == [f"BraTS-GLI-00003-001-{m}.nii.gz" for m in ("seg", "t1c", "t1n", "t2f", "t2w")]
    image = nib.load(folder / names[1])
    np.testing.assert_array_equal(image.affine, [[-1, 0, 0, 0], [0, -1, 0, 31], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert image.get_data_dtype() == np.int16 and nib.load(folder / names[0]).get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [(1, 0)]), (4, [(1, 0), (2, 0), (3, 0), (3, 1)]), (5, [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0)])],
)
def test_every_third_subject_has_two_time_points(count: int, expected: list[tuple[int, int]]) -> None:
    assert brats_case_names(count) == expected


def test_every_class_with_its_contrast_and_one_head_mask() -> None:
    cases = [make_brats_case(0, subject, 0, SHAPE) for subject in (1, 2, 3)]
    for images, label in cases:
        assert {NETC, SNFH, ET} <= set(np.unique(label))
        heads = [image > 0 for image in images.values()]
        assert all(np.array_equal(head, heads[0]) for head in heads)
        assert not label[~heads[0]].any()
        mean = {m: [images[m][label == value].mean() for value in (NETC, SNFH, ET)] for m in images}
        normal = {m: images[m][heads[0] & (label == 0)].mean() for m in images}
        assert mean["t1c"][2] > 1.4 * max(mean["t1c"][0], mean["t1c"][1], normal["t1c"])
        assert mean["t2f"][1] > 1.4 * normal["t2f"]
    assert any((label == RC).any() for _, label in cases), "no case with a resection cavity"
    assert not all((label == RC).any() for _, label in cases)


def test_enhancing_tumour_has_thin_and_small_parts() -> None:
    thin = small = 0
    for subject in range(1, 7):
        _, label = make_brats_case(0, subject, 0, (64, 64, 48))
        enhancing = label == ET
        thin += int((enhancing & ~ndimage.binary_opening(enhancing, iterations=1)).sum())
        components, count = ndimage.label(enhancing)
        sizes = ndimage.sum_labels(enhancing, components, range(1, count + 1))
        small += int(((sizes >= 4) & (sizes <= 40)).sum())
    assert thin > 500 and small >= 6


def test_second_visit_is_the_same_head_with_a_larger_tumour() -> None:
    (first, before), (second, after) = (make_brats_case(0, 3, visit, SHAPE) for visit in (0, 1))
    np.testing.assert_array_equal(first["t1n"] > 0, second["t1n"] > 0)
    assert (after > 0).sum() > (before > 0).sum()
    assert ((after > 0) & (before > 0)).sum() > 0.5 * (before > 0).sum()


def test_brain_has_grey_and_white_matter_and_fields_are_standardised() -> None:
    brain = draw_brain(np.random.default_rng(0), SHAPE)
    assert min((brain == GREY).sum(), (brain == WHITE).sum()) > 1000
    field = smooth_field(np.random.default_rng(0), (20, 31, 17), 5)
    assert field.shape == (20, 31, 17)
    assert field.mean() == pytest.approx(0, abs=1e-4) and field.std() == pytest.approx(1, abs=1e-4)


def test_isles_layout_has_two_oblique_grids_of_one_head(phantoms) -> None:
    session = phantoms("isles22") / "sub-strokecase0001" / "ses-0001"
    flair = nib.load(session / "anat" / "sub-strokecase0001_ses-0001_FLAIR.nii.gz")
    dwi = nib.load(session / "dwi" / "sub-strokecase0001_ses-0001_dwi.nii.gz")
    np.testing.assert_allclose(flair.header.get_zooms(), (1.5, 1.5, 6), atol=1e-5)
    np.testing.assert_allclose(dwi.header.get_zooms(), (2, 2, 2), atol=1e-5)
    assert abs(flair.affine[1, 2]) > 1e-3 and np.linalg.det(flair.affine[:3, :3]) < 0
    centres = []
    for image in (flair, dwi):
        voxel = ndimage.center_of_mass(np.asarray(image.dataobj) > 0)
        centres.append(nib.affines.apply_affine(image.affine, voxel))
    assert np.linalg.norm(centres[0] - centres[1]) < 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--cases", "0"], "no cases to write"),
        (["--cases", "1", "--shape", "8", "64", "64"], "too small for its structures"),
    ],
)
def test_impossible_requests_are_one_line(arguments: list[str], text: str, command, tmp_path: Path) -> None:
    outcome = command("phantoms", "--output", tmp_path / "out", *arguments)
    assert outcome.code == 1 and text in outcome.err


def test_output_below_a_file_is_one_line(command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command("phantoms", "--output", tmp_path / "file" / "out")
    assert outcome.code == 1 and "cannot create the output folder" in outcome.err
