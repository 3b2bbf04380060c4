"""MONAI Deploy: a real MR study in, a DICOM segmentation out, judged without the App SDK."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, read_json
from tests.integration.conftest import call, tool_environment, toy_bundle

pytestmark = [pytest.mark.slow, pytest.mark.integration]
# The app reads inference.json alone, and those of a task's bundles differ in the width of the network only
# (tests/bundles/test_generated.py), which is a toy's here: each task and each role has its turn once.
# a coarse grid: a whole head in a few windows
COARSE = {"pixdim": [3.0, 3.0, 3.0], "patch_size": [64, 64, 64], "overlap": 0.25}
CHANNELS = ["t1n", "t1c", "t2w", "t2f"]


@pytest.fixture(scope="module")
def python():
    """Python of the Deploy environment."""
    return str(tool_environment("deploy") / "bin" / "python")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Toy bundles by name, made once."""
    folder = tmp_path_factory.mktemp("deploy")
    return functools.cache(lambda name: toy_bundle(name, folder, **COARSE))


@pytest.fixture
def brats(bundles):
    """A toy bundle of four channels."""
    return bundles("brats24_segmentation_student")


def segment(bundle, source, output, *options, code=0):
    """Run the app as a user does."""
    command = [str(ROOT / "scripts" / "monai_deploy.sh"), "--bundle", str(bundle), "--input", str(source)]
    return call([*command, "--output", str(output), *options], code)


def judge(python, bundle, output, folders):
    """What the judge finds about the one segmentation in a folder."""
    [file] = Path(output).glob("*.dcm")
    script = str(ROOT / "tests" / "integration" / "judge_segmentation.py")
    # importing monai imports the App SDK there, which wants the CUDA runtime
    [runtime] = Path(python).parents[1].glob("lib/python*/site-packages/nvidia/cuda_runtime/lib")
    environment = {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(runtime)}
    result = call([python, script, str(bundle), str(file), *map(str, folders)], **environment)
    return json.loads(result.stdout.splitlines()[-1])


def test_four_series_become_four_channels_and_one_segmentation(python, bundles, study, tmp_path):
    bundle = bundles("brats24_segmentation_student_dcd")
    result = segment(bundle, study, tmp_path / "out")
    assert Path(result.stdout.splitlines()[-1]).parent == tmp_path / "out"
    found = judge(python, bundle, tmp_path / "out", [study / name for name in CHANNELS])
    assert found["modality"] == "SEG" and found["same_study"]
    assert found["segments"] == ["NETC", "SNFH", "ET", "RC"]
    assert bundle.name in found["description"]
    assert found["pixel_difference"] == 0 and found["affine_difference_mm"] < 1e-3
    assert len(found["labels"]) > 1 and found["voxels"] > 22 * 10**3
    assert found["wrong_voxels"] == 0


def test_other_channels_are_named_on_the_command_line(python, bundles, study, tmp_path):
    bundle = bundles("isles22_segmentation_teacher")
    # no diffusion in this study: any series on the grid of the FLAIR shows that the right one went into each channel
    series = ["--series", "FLAIR=^FLAIR", "--series", "DWI=^T2_", "--series", "ADC=^T1pre"]
    segment(bundle, study, tmp_path / "out", *series)
    found = judge(python, bundle, tmp_path / "out", [study / "t2f", study / "t2w", study / "t1n"])
    assert found["segments"] == ["lesion"] and found["types"] == ["Lesion"]
    assert len(found["labels"]) > 1 and found["wrong_voxels"] == 0


# an empty first slice, fractions and oblong pixels: all that the App SDK's own conversion gets wrong
DIFFICULT = """
import sys, pydicom
for file in sys.argv[1:]:
    dataset = pydicom.dcmread(file)
    dataset.RescaleSlope, dataset.RescaleIntercept = 0.37, 0
    dataset.PixelSpacing = [0.6, 0.45]
    if dataset.InstanceNumber in (1, 22):
        dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(file)
"""


def test_one_series_becomes_one_segmentation(python, bundles, study, tmp_path):
    copy, bundle = tmp_path / "study", bundles("hippocampus_segmentation_student")
    shutil.copytree(study, copy)
    call([python, "-c", DIFFICULT, *map(str, (copy / "t1c").iterdir())])
    segment(bundle, copy, tmp_path / "out", "--series", "^T1post$")
    found = judge(python, bundle, tmp_path / "out", [copy / "t1c"])
    assert found["segments"] == ["Anterior", "Posterior"] and found["types"] == ["Hippocampus"] * 2
    assert found["pixel_difference"] < 1e-3 and found["affine_difference_mm"] < 1e-3
    assert len(found["labels"]) > 1 and found["wrong_voxels"] == 0


def test_an_exported_network_gives_the_same_segmentation(python, study, tmp_path):
    bundle = toy_bundle("hippocampus_segmentation_student", tmp_path, seed=5, **COARSE)
    configs, models = bundle / "configs", bundle / "models"
    export = [sys.executable, "-m", "monai.bundle", "ckpt_export", "--net_id", "network_def", "--use_trace", "True"]
    export += ["--filepath", str(models / "model.ts"), "--ckpt_file", str(models / "model.pt")]
    export += ["--meta_file", str(configs / "metadata.json"), "--config_file", str(configs / "inference.json")]
    call(export)
    away = (models / "model.pt").rename(tmp_path / "model.pt")
    segment(bundle, study / "t1c", tmp_path / "out")
    shutil.copyfile(away, models / "model.pt")
    found = judge(python, bundle, tmp_path / "out", [study / "t1c"])
    assert len(found["labels"]) > 1 and found["wrong_voxels"] == 0


def test_a_missing_series_is_named(python, brats, study, tmp_path):
    for name in CHANNELS[:3]:
        shutil.copytree(study / name, tmp_path / "study" / name)
    result = segment(brats, tmp_path / "study", tmp_path / "out", code=1)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: series for t2f is missing – channel t2f, pattern flair|t2f – expected one series, ")
    assert "'T1pre_reg'" in last and last.endswith("name the series with --series CHANNEL=REGEX")
    assert not list(tmp_path.rglob("out/*.dcm"))


def test_series_on_other_places_or_with_a_slice_missing_are_refused(python, brats, study, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    (copy / "t2w" / "000007.dcm").unlink()
    error = segment(brats, copy, tmp_path / "out", code=1).stderr.strip().splitlines()[-1]
    assert error.startswith("error: slices are not evenly spaced – series t2w (T2_reg), between slices ")
    shutil.rmtree(copy / "t2w")
    shutil.copytree(study / "t2w", copy / "t2w")
    move = "import sys, pydicom\nfor f in sys.argv[1:]:\n d = pydicom.dcmread(f)\n d.ImagePositionPatient[0] += 5\n"
    call([python, "-c", move + " d.save_as(f)", *map(str, (copy / "t2w").iterdir())])
    error = segment(brats, copy, tmp_path / "out", code=1).stderr.strip().splitlines()[-1]
    assert error.startswith("error: series do not fit on each other (affine) – series t2w (T2_reg), compared with t1n")
    assert "found 5 mm" in error
    assert not list(tmp_path.rglob("out/*.dcm"))


def test_a_folder_that_is_missing_or_has_no_dicom_is_told_in_a_line(python, bundles, brats, tmp_path):
    folder, output = tmp_path / "study", tmp_path / "out"
    error = segment(brats, folder, output, code=1).stderr
    assert error.strip() == (
        f"error: no input – {folder} – expected a folder of DICOM files, found no such folder – pass --input <folder>"
    )
    expected = f"error: no DICOM files – {folder} – expected one study, found 0 – pass --input <folder of one study>"
    folder.mkdir()
    for bundle in (brats, bundles("hippocampus_segmentation_student")):
        error = segment(bundle, folder, output, code=1).stderr.strip().splitlines()[-1]
        assert error == expected
        (folder / "notes.txt").write_text("not DICOM, either")
    assert not output.exists()


# what a decoder meets: fragments that are no image, a video, less than a whole slice
DAMAGE = """
import sys, pydicom
from pydicom.encaps import encapsulate
kind, *files = sys.argv[1:]
for file in files:
    dataset = pydicom.dcmread(file)
    if kind == "cut":
        dataset.PixelData = dataset.PixelData[:-10]
    else:
        dataset.file_meta.TransferSyntaxUID, dataset.PixelData = kind, encapsulate([b"no image"])
        dataset["PixelData"].VR = "OB"
    dataset.save_as(file)
"""


@pytest.mark.parametrize("kind", ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.100", "cut"])
def test_pixels_that_cannot_be_decoded_are_told_in_a_line(python, bundles, study, tmp_path, kind):
    shutil.copytree(study / "t1c", tmp_path / "study")
    call([python, "-c", DAMAGE, kind, *map(str, (tmp_path / "study").iterdir())])
    bundle = bundles("hippocampus_segmentation_student")
    result = segment(bundle, tmp_path / "study", tmp_path / "out", code=1)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: pixels cannot be read – series T1 (T1post), slice 1 of 22 – expected pixels")
    assert last.endswith("copy the series again or decompress it, e.g. with gdcmconv --raw")
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_weights_is_refused(python, tmp_path):
    bundle = toy_bundle("brats24_segmentation_student", tmp_path)
    (bundle / "models" / "model.pt").unlink()
    error = segment(bundle, tmp_path, tmp_path / "out", code=1).stderr.strip().splitlines()[-1]
    assert error.startswith("error: no weights – ") and "expected model.pt" in error


def test_a_bundle_without_its_authors_or_its_config_is_refused(python, study, tmp_path):
    bundle = toy_bundle("hippocampus_segmentation_student", tmp_path)
    metadata = bundle / "configs" / "metadata.json"
    metadata.write_text(json.dumps({k: v for k, v in read_json(metadata).items() if k != "authors"}))
    options = (bundle, study / "t1c", tmp_path / "out")
    error = segment(*options, code=1).stderr.strip().splitlines()[-1]
    assert error.startswith(f"error: bundle without authors – {metadata} – ") and error.endswith("add it to the file")
    (bundle / "configs" / "inference.json").unlink()
    error = segment(*options, code=1).stderr.strip().splitlines()[-1]
    assert error.startswith(f"error: not a bundle – {bundle / 'configs' / 'inference.json'} – expected a JSON file, ")
    assert not (tmp_path / "out").exists()


def test_damaged_and_foreign_weights_and_a_damaged_config_are_refused(python, study, tmp_path):
    bundle = toy_bundle("hippocampus_segmentation_student", tmp_path)
    other = toy_bundle("hippocampus_segmentation_teacher", tmp_path, features=[16] * 4)
    weights, config = bundle / "models" / "model.pt", bundle / "configs" / "inference.json"

    def last_line():
        printed = segment(bundle, study / "t1c", tmp_path / "out", code=1).stderr
        assert "Traceback" not in printed and not (tmp_path / "out").exists()
        return printed.strip().splitlines()[-1]

    shutil.copy(other / "models" / "model.pt", weights)
    assert last_line().startswith("error: weights do not fit the network (")
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert last_line().startswith(f"error: weights cannot be read – {weights} – ")
    exported = weights.with_suffix(".ts")
    exported.write_bytes(b"cut")
    assert last_line().startswith(f"error: weights cannot be read – {exported} – expected TorchScript")
    config.write_text(config.read_text("utf-8")[:-3], "utf-8")
    assert last_line().startswith(f"error: not a bundle – {config} – expected a JSON file")


def test_a_bug_still_shows_where_it_is(python, study, tmp_path):
    bundle = toy_bundle("hippocampus_segmentation_student", tmp_path)
    config = bundle / "configs" / "inference.json"
    config.write_text(json.dumps({**read_json(config), "postprocessing": "$1 / 0"}), "utf-8")
    error = segment(bundle, study / "t1c", tmp_path / "out", code=1).stderr
    assert "Traceback (most recent call last)" in error and "error: " not in error.splitlines()[-1][:7]
