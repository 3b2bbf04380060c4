"""ISLES 2022: geometry on the FLAIR grid against a known place, restart after SIGKILL, failures case by case."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from dcd_ext.data.cases import Case
from dcd_ext.data.isles import resample_cases
from dcd_ext.data.resample import resample_to_grid
from dcd_ext.data.summary import describe_datalist
from dcd_ext.data.tasks import ISLES22
from dcd_ext.errors import UserError

ROOT = Path(__file__).parents[2]


def _turn(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _affine(linear: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = 5 - linear @ ((np.array(shape) - 1) / 2)
    return affine


AFFINES = {
    "RAS": np.diag([1.0, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1]),
    "left-handed": np.diag([-1.0, 1, 1]),
    "oblique anisotropic": _turn(20) @ np.diag([0.7, 0.7, 3]),
    "oblique left-handed anisotropic": _turn(-15) @ np.diag([-0.6, 0.8, 2.5]),
    "axes swapped": np.array([[0, 0, -2.0], [1, 0, 0], [0, 1, 0]]),
    "sheared": np.array([[1, 0.05, 0], [0, 1, 0.02], [0, 0, 1.5]]),
}


@pytest.mark.parametrize("target", AFFINES)
@pytest.mark.parametrize("source", AFFINES)
def test_a_blob_stays_at_its_millimetre_and_the_affine_is_the_targets(source: str, target: str, tmp_path: Path) -> None:
    # warnings are errors in these tests: loaded without the care that resample.py takes, ITK would crash Python here
    shape, target_shape = (30, 34, 26), (45, 37, 41)
    affine = _affine(AFFINES[source], shape)
    blob = np.zeros(shape, np.float32)
    blob[17, 15, 14] = 1
    nib.save(nib.Nifti1Image(ndimage.gaussian_filter(blob, 1.5), affine), tmp_path / "source.nii.gz")
    header = nib.Nifti1Image(np.zeros(target_shape, np.uint8), _affine(AFFINES[target], target_shape))
    nib.save(header, tmp_path / "target.nii.gz")
    resample_to_grid(tmp_path / "source.nii.gz", tmp_path / "target.nii.gz", tmp_path / "out.nii.gz", is_label=False)
    result = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(result.affine, nib.load(tmp_path / "target.nii.gz").affine)
    found = apply_affine(result.affine, ndimage.center_of_mass(result.get_fdata()))
    np.testing.assert_allclose(found, apply_affine(affine, (17, 15, 14)), atol=0.25)


def test_linear_interpolation_equals_scipy_and_labels_stay_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape, target_shape = (20, 22, 18), (25, 19, 12)
    affine, target = _affine(_turn(8) * 2, shape), _affine(np.diag([-1.3, 1.3, 3.0]), target_shape)
    data = rng.standard_normal(shape).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "image.nii.gz")
    nib.save(nib.Nifti1Image((data > 1).astype(np.uint16), affine), tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(target_shape, np.uint8), target), tmp_path / "target.nii.gz")
    for name in ("image", "mask"):
        resample_to_grid(
            tmp_path / f"{name}.nii.gz", tmp_path / "target.nii.gz", tmp_path / f"{name}2.nii.gz", name == "mask"
        )
    to_source = np.linalg.inv(affine) @ target
    index = apply_affine(to_source, np.argwhere(np.ones(target_shape))).T
    expected = ndimage.map_coordinates(data, index, order=1, mode="nearest").reshape(target_shape)
    inside = ((index > 0) & (index < np.array(shape)[:, None] - 1)).all(0).reshape(target_shape)
    result = nib.load(tmp_path / "image2.nii.gz").get_fdata()
    np.testing.assert_allclose(result[inside], expected[inside], atol=1e-4)
    mask = nib.load(tmp_path / "mask2.nii.gz")
    assert mask.get_data_dtype() == np.uint8 and set(np.unique(mask.dataobj)) == {0, 1}


def _prepare(command, source: Path, output: Path, *arguments: str):
    return command("prepare", "isles22", "--source", source, "--output", output, "--jobs", "1", *arguments)


def test_list_names_the_grid_keeps_the_published_mask_and_passes_the_check(command, phantoms, tmp_path: Path) -> None:
    source, out = phantoms("isles22"), tmp_path / "out"
    assert _prepare(command, source, out).code == 0
    content = json.loads((out / "datalist.json").read_text())
    assert content["grid"] == "FLAIR" and list(content["modality"].values()) == list(ISLES22.modalities)
    entry = content["training"][0]
    assert [Path(f).name.rpartition("_")[2] for f in entry["image"]] == ["FLAIR.nii.gz", "dwi.nii.gz", "adc.nii.gz"]
    assert entry["image"][0].startswith("../source/"), "the FLAIR must not be copied"
    assert entry["source_mask"].startswith("../source/derivatives/")
    images = [nib.load(out / name) for name in (*entry["image"], entry["label"])]
    assert len({image.shape for image in images}) == 1
    assert all(np.array_equal(image.affine, images[0].affine) for image in images)
    volume = [
        float(np.asarray(i.dataobj).sum()) * abs(np.linalg.det(i.affine[:3, :3]))
        for i in (images[3], nib.load(out / entry["source_mask"]))
    ]
    assert volume[0] == pytest.approx(volume[1], rel=0.5)  # 6 mm slices sample a small lesion coarsely
    assert len(content["test"]) == 1 and "source_mask" not in content["test"][0]
    assert command("check", out).code == 0


def test_output_inside_the_source_can_be_prepared_again(command, phantoms) -> None:
    source = phantoms("isles22")
    for _ in range(2):
        assert _prepare(command, source, source / "prepared").code == 0
    assert len(json.loads((source / "prepared" / "datalist.json").read_text())["training"]) == 6
    outcome = _prepare(command, source, source)
    assert outcome.code == 1 and "a folder named as a case" in outcome.err and not (source / "on_flair").exists()


def _markers(out: Path) -> dict[str, int]:
    return {f.parent.name: f.stat().st_mtime_ns for f in out.glob("on_flair/*/done.json")}


def test_a_second_run_redoes_only_what_changed(command, phantoms, tmp_path: Path) -> None:
    source, out = phantoms("isles22"), tmp_path / "out"
    _prepare(command, source, out)
    before = _markers(out)
    os.utime(next(source.rglob("*strokecase0002*_dwi.nii.gz")))
    os.utime(next(source.rglob("*strokecase0005*_FLAIR.nii.gz")))
    next((out / "on_flair" / "sub-strokecase0003").glob("*adc*")).unlink()
    (out / "on_flair" / "sub-strokecase0004" / "done.json").write_text("half a marke")
    leftover = out / "on_flair" / "sub-strokecase0004" / ".tmp-1-x.nii.gz"
    leftover.write_bytes(b"half an image")
    assert _prepare(command, source, out).code == 0
    after = _markers(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"sub-strokecase{n:04d}" for n in (2, 3, 4, 5)} and not leftover.exists()


@pytest.mark.slow
def test_sigkill_half_way_and_a_restart_complete_without_redoing(phantoms, tmp_path: Path) -> None:
    source, out = phantoms("isles22"), tmp_path / "out"
    for number in range(8, 40):  # more cases: copies of the first under other names
        name, first = f"sub-strokecase{number:04d}", "sub-strokecase0001"
        for file in source.rglob(f"{first}_*"):
            target = Path(str(file).replace(first, name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    command = [sys.executable, "-m", "dcd_ext", "prepare", "isles22", "--source", str(source), "--output", str(out)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    run = subprocess.Popen(
        [*command, "--jobs", "2"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600
    while len(_markers(out)) < 8:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(1)  # the workers notice and end
    before = _markers(out)
    assert 8 <= len(before) < 39 and not (out / "datalist.json").exists()
    again = subprocess.run([*command, "--jobs", "1"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    after = _markers(out)
    assert len(after) == 39 and all(after[name] == stamp for name, stamp in before.items())
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("pattern", "change", "text"),
    [
        ("*case0002*_dwi.nii.gz", lambda f: f.write_bytes(f.read_bytes()[:2000]), "ended before the end-of-stream"),
        ("*case0002*_FLAIR.nii.gz", lambda f: f.write_text("no image"), "sub-strokecase0002"),
        (
            "*case0002*_adc.nii.gz",
            lambda f: nib.save(nib.Nifti1Image(np.zeros((9, 9, 9, 2), np.float32), np.eye(4)), f),
            "has 4 dimensions, not 3",
        ),
    ],
)
def test_a_broken_case_is_named_and_the_others_are_finished(
    pattern: str, change, text: str, command, phantoms, tmp_path: Path
) -> None:
    source, out = phantoms("isles22"), tmp_path / "out"
    change(next(source.rglob(pattern)))
    outcome = _prepare(command, source, out)
    assert outcome.code == 1 and text in outcome.err and "1 of 7 cases could not be resampled" in outcome.err
    assert len(_markers(out)) == 6 and not (out / "datalist.json").exists() and not list(out.rglob(".tmp-*"))


def test_missing_adc_is_one_line(command, phantoms, tmp_path: Path) -> None:
    source = phantoms("isles22")
    next(source.rglob("*case0003*_adc.nii.gz")).unlink()
    outcome = _prepare(command, source, tmp_path / "out")
    assert outcome.code == 1 and "case sub-strokecase0003: no ADC" in outcome.err


def test_files_already_on_the_flair_grid_are_used_in_place(command, phantoms, tmp_path: Path) -> None:
    source, out = phantoms("isles22"), tmp_path / "out"
    dwi = next(source.rglob("*case0001*_dwi.nii.gz"))
    flair = nib.load(next(source.rglob("*case0001*_FLAIR.nii.gz")))
    nib.save(nib.Nifti1Image(np.asarray(flair.dataobj), flair.affine), dwi)
    _prepare(command, source, out)
    entry = json.loads((out / "datalist.json").read_text())["training"][0]
    assert (out / entry["image"][1]).resolve() == dwi.resolve()


def test_a_lesion_between_the_slices_of_the_flair_is_named_in_every_run(tmp_path: Path, caplog) -> None:
    lesion = np.zeros((12, 12, 12), np.uint8)
    lesion[5, 5, 3] = 1
    for name in ("dwi", "adc", "msk"):
        nib.save(nib.Nifti1Image(lesion, np.eye(4)), tmp_path / f"a_{name}.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((12, 12, 2), np.uint8), np.diag([1.0, 1, 6, 1])), tmp_path / "a_FLAIR.nii.gz")
    images = tuple(tmp_path / f"a_{name}.nii.gz" for name in ("FLAIR", "dwi", "adc"))
    for _ in range(2):
        caplog.clear()
        resample_cases([Case("a", "a", images, tmp_path / "a_msk.nii.gz")], tmp_path / "out", workers=1)
        assert "case a: no lesion voxel is left on the FLAIR grid" in caplog.messages


def test_nan_is_0_and_almost_whole_labels_are_whole_before_resampling(tmp_path: Path) -> None:
    """Interpolation would spread NaN over its neighbours, and a label of 1.9995 would stay one."""
    rng, affine, finer = np.random.default_rng(0), np.diag([2.0, 2, 3, 1]), np.diag([1.5, 1.7, 2, 1])
    image = rng.normal(900, 50, (10, 12, 8)).astype(np.float32)
    label = rng.integers(0, 3, image.shape).astype(np.float32)
    image[4:6, 3] = 0
    nib.save(nib.Nifti1Image(np.zeros((12, 13, 11), np.uint8), finer), tmp_path / "target.nii.gz")

    def resampled(data: np.ndarray, is_label: bool) -> np.ndarray:
        nib.save(nib.Nifti1Image(data, affine), tmp_path / "source.nii.gz")
        names = [tmp_path / f"{name}.nii.gz" for name in ("source", "target", "out")]
        resample_to_grid(*names, is_label=is_label)
        return np.asarray(nib.load(names[2]).dataobj)

    expected = resampled(image, False)
    image[4:6, 3] = np.nan
    np.testing.assert_array_equal(resampled(image, False), expected)
    found = resampled(label - np.float32(5e-4) * (label > 1), True)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, resampled(label, True))
    image[0, 0, 0] = -np.inf
    with pytest.raises(UserError, match=r"infinite intensities – .*source.nii.gz – expected finite numbers, found 1"):
        resampled(image, False)
    with pytest.raises(
        UserError, match=r"unusable label values – .*source.nii.gz – expected whole numbers, found 0.5, 1.5"
    ):
        resampled(label + np.float32(0.5), True)


def test_the_summary_counts_labels_as_training_reads_them(tmp_path: Path) -> None:
    for name, data in (("image", np.ones((4, 4, 4))), ("label", np.full((4, 4, 4), 1.9993))):
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    entry = {"image": "image.nii", "label": "label.nii", "case": "a", "subject": "a", "fold": 0}
    content = {"training": [entry], "test": [], "folds": 1, "modality": {"0": "T1"}, "labels": {"1": "A", "2": "P"}}
    assert re.search(r"^2 +P +64 +1$", describe_datalist(content, tmp_path), re.MULTILINE)
