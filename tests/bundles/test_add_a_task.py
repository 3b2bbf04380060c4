"""The example of docs/add_a_task.md builds bundles that train and segment 4D Decathlon data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from dcd_ext.commands import check, prepare
from dcd_ext.data.phantoms import PhantomSpec, write_phantoms
from scripts import build_bundles
from tests.conftest import ROLES, ROOT, read_json

DOC = (ROOT / "docs" / "add_a_task.md").read_text("utf-8")
SMALL = {"features": [8] * 6, "n_blocks": [1] * 6, "patch_size": [64, 64, 8], "pixdim": [0.5, 0.5, 3.0]}
SHORT = {"max_epochs": 1, "iterations_per_epoch": 1, "val_interval": 1, "num_workers": 0, "batch_size": 1}


def _example() -> str:
    (text,) = re.findall(r"^```json\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    return text


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with the documented file beside the shipped tasks, built."""
    root = tmp_path_factory.mktemp("task")
    shutil.copytree(ROOT / "bundle_src", root / "bundle_src")
    name = re.findall(r"^`bundle_src/tasks/(\w+\.json)`", DOC, re.MULTILINE)[0]
    (root / "bundle_src" / "tasks" / name).write_text(_example(), "utf-8")
    arguments = ["--source", str(root / "bundle_src"), "--output", str(root / "bundles")]
    assert build_bundles.main(arguments) == 0 and build_bundles.main([*arguments, "--check"]) == 0
    return root / "bundles"


def test_one_file_gives_three_bundles(bundles: Path) -> None:
    made = {path.name for path in bundles.iterdir() if path.name.startswith("prostate")}
    assert made == {f"prostate_segmentation_{role}" for role in ROLES}
    assert "hippocampus_segmentation_teacher" in {path.name for path in bundles.iterdir()}
    train = read_json(bundles / "prostate_segmentation_student_dcd" / "configs" / "train.json")
    task = json.loads(_example())
    assert all(train[key] == value for key, value in {**task["common"], "reduction_factor": 4}.items())
    readme = (bundles / "prostate_segmentation_student" / "docs" / "README.md").read_text("utf-8")
    assert task["readme"]["data"] in readme and "256 × 320 × 20 voxels at 0.62 × 0.62 × 3.6 mm" in readme


def test_the_docs_commands_name_what_is_built(bundles: Path) -> None:
    for name in re.findall(r"B=bundles/(\w+)", DOC):
        assert (bundles / name / "configs" / "train.json").is_file()
    for script in re.findall(r"python (scripts/\w+\.py)", DOC):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("320, 20]", "320, 21]", "does not fit the strides along z"),
        ('"fragments": {', '"other": {', "expected a section 'fragments', found none"),
        ("{", "[", "no task file"),
    ],
)
def test_a_spoiled_task_file_is_one_line(old: str, new: str, text: str, tmp_path: Path, capsys) -> None:
    shutil.copytree(ROOT / "bundle_src", tmp_path / "bundle_src")
    (tmp_path / "bundle_src" / "tasks" / "prostate.json").write_text(_example().replace(old, new), "utf-8")
    arguments = ["--source", str(tmp_path / "bundle_src"), "--output", str(tmp_path / "bundles")]
    assert build_bundles.main(arguments) == 1 and not (tmp_path / "bundles").exists()
    error = capsys.readouterr().err
    assert text in error and "prostate.json" in error and "Traceback" not in error


def _prostate_phantoms(folder: Path) -> Path:
    """Two sequences in one 4D file, thin in plane and thick across, as the Decathlon stores them."""
    write_phantoms(PhantomSpec(folder, "msd", cases=2, test_cases=1, shape=(72, 72, 24)))
    for path in [*folder.glob("images*/*.nii.gz"), *folder.glob("labels*/*.nii.gz")]:
        voxels = np.asarray(nib.load(path).dataobj)[:, :, ::2]
        affine = np.diag([0.5, 0.5, 3, 1])
        pair = voxels if "labels" in path.parent.name else np.stack([voxels, voxels[::-1]], -1)
        nib.save(nib.Nifti1Image(pair, affine), path)
    index = read_json(folder / "dataset.json")
    index.update(name="PROSTATE", modality={"0": "T2", "1": "ADC"})
    index["labels"] = {"0": "background", "1": "PZ", "2": "TZ"}
    (folder / "dataset.json").write_text(json.dumps(index))
    return folder


def _run(bundle: Path, config: str, kind: str, **override) -> None:
    file = str(bundle / "configs" / f"{config}.json")
    workflow = ConfigWorkflow(
        config_file=file, workflow_type=kind, logging_file=False, bundle_root=str(bundle), **SMALL, **override
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_the_documented_task_is_prepared_checked_trained_and_used(bundles: Path, tmp_path: Path) -> None:
    source, data = _prostate_phantoms(tmp_path / "Task05_Prostate"), tmp_path / "prepared"
    assert prepare.main(["msd", "--source", str(source), "--output", str(data)]) == 0
    metadata = bundles / "prostate_segmentation_student" / "configs" / "metadata.json"
    assert check.main([str(data), "--task", str(metadata)]) == 0
    for role in ("teacher", "student_dcd"):
        bundle = bundles / f"prostate_segmentation_{role}"
        _run(bundle, "train", "train", dataset_dir=str(data), **SHORT)
    _run(bundle, "inference", "infer", dataset_dir=str(data), output_dir=str(tmp_path / "out"))
    (path,) = (tmp_path / "out").rglob("*_seg.nii.gz")
    image = nib.load(next((source / "imagesTs").iterdir()))
    seg = nib.load(path)
    assert seg.shape == image.shape[:3]
    np.testing.assert_allclose(seg.affine, image.affine, atol=1e-4)
