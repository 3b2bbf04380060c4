"""Imported bundles against nnU-Net itself: logits, label maps of raw cases, and the way back into nnU-Net."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.commands.main import main as dcd
from tests.conftest import ROOT, read_json
from tests.integration.conftest import call, tool_environment

pytestmark = pytest.mark.integration
HERE = Path(__file__).parent / "nnunet"
TRAINED = "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres"
HIPPOCAMPUS, SAGITTAL, ENSEMBLE = "Dataset004_Hippocampus", "Dataset005_Sagittal", "ensemble"
# data set of the network -> data set of the images
IMAGES = {
    HIPPOCAMPUS: HIPPOCAMPUS,
    SAGITTAL: SAGITTAL,
    ENSEMBLE: HIPPOCAMPUS,
    "Dataset006_Plain": HIPPOCAMPUS,
    "Dataset007_Regions": HIPPOCAMPUS,
    "Dataset008_CT": HIPPOCAMPUS,
}
SHORT = {"max_epochs": 2, "iterations_per_epoch": 2, "val_interval": 1, "num_workers": 0, "cache_rate": 0.0}
# no test here depends on a score
FEW = {"validate::dataset::data": "$dcd_ext.data.load_cases(@dataset_dir, 'validation', @fold)[:1]"}


def in_nnunet(program: str, *arguments: str | Path) -> None:
    """Run a program of nnU-Net's environment."""
    folder = tool_environment("nnunet") / "bin"
    call([str(folder / program), *map(str, arguments)], minutes=60, PYTHONPATH="")  # trains three networks


@dataclass
class World:
    """What nnU-Net made, and the bundles of it."""

    trained: Path
    folder: Path

    def model(self, name: str) -> Path:
        return self.trained / "results" / (HIPPOCAMPUS if name == ENSEMBLE else name) / TRAINED

    def images(self, name: str) -> Path:
        return self.folder / "images" / IMAGES[name]

    def bundle(self, name: str, role: str = "teacher") -> Path:
        """Of a network, imported at the first call."""
        bundles = self.folder / "bundles" / name
        if not bundles.is_dir():
            splits = self.trained / "preprocessed" / HIPPOCAMPUS / "splits_final.json"
            options = ["--folds", "0", *(["1"] if name == ENSEMBLE else [])]
            if IMAGES[name] == name:
                options += ["--raw", str(self.trained / "raw"), "--splits", str(splits)]
            if name == ENSEMBLE:
                options += ["--raw", str(self.trained / "raw" / HIPPOCAMPUS), "--splits", str(splits)]
            assert dcd(["import-nnunet", "--results", str(self.model(name)), "--output", str(bundles), *options]) == 0
        return bundles / f"{self.model(name).parent.name}_segmentation_{role}"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data, where nnU-Net is installed, too."""
    tool_environment("nnunet")
    folder = Path(os.environ.get("DCD_DATA_DIR", ROOT.parent / "shared" / "data")).resolve()
    if not (folder / "Task04_Hippocampus").is_dir():
        pytest.skip(f"no real data: set DCD_DATA_DIR (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def world(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Networks trained by nnU-Net; $DCD_NNUNET_MODELS keeps them for further sessions. And what they predict."""
    folder = tmp_path_factory.mktemp("nnunet")
    made = World(Path(os.environ.get("DCD_NNUNET_MODELS", folder / "models")), folder)
    if not (made.trained / "results" / "Dataset008_CT").is_dir():
        in_nnunet("python", HERE / "train.py", data_root / "Task04_Hippocampus", made.trained)
    for name in (HIPPOCAMPUS, SAGITTAL):
        write_images(made.trained / "raw" / name / "imagesTs", made.images(name))
    jobs = [job(made, name) for name in IMAGES]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    in_nnunet("python", HERE / "predict.py", folder / "jobs.json")
    return made


def write_images(source: Path, target: Path) -> None:
    """Two real cases, and one larger than the patch along every axis, stored the other way, with an empty border."""
    target.mkdir(parents=True)
    files = sorted(source.iterdir())
    for file in files[:2]:
        shutil.copy(file, target)
    image = nib.load(files[2])
    thick = image.header.get_zooms()[0] > 2
    voxels = np.pad(np.tile(np.asarray(image.dataobj), (2 if thick else 1, 1, 1)), ((3, 0), (0, 4), (2, 2)))
    nib.save(nib.Nifti1Image(voxels, image.affine @ np.diag([-1, 1, 1, 1])), target / "large_0000.nii.gz")


def job(world: World, name: str) -> dict:
    """What nnU-Net is to predict with a network, and the patch whose logits it is to write."""
    folder = world.folder / "nnunet" / name
    folder.mkdir(parents=True)
    plans = read_json(world.model(name) / "plans.json")
    side = plans["configurations"]["3d_fullres"]["patch_size"]
    patch = np.random.default_rng(0).normal(size=(1, 1, *side)).astype("float32")
    np.save(folder / "patch.npy", patch)
    files = {"patch": str(folder / "patch.npy"), "logits": str(folder / "logits.npy")}
    where = {"source": str(world.images(name)), "target": str(folder), "model": str(world.model(name))}
    return {**where, **files, "folds": [0, 1] if name == ENSEMBLE else [0]}


def label_maps(folder: Path, ending: str) -> dict[str, np.ndarray]:
    return {p.name.removesuffix(ending): np.asarray(nib.load(p).dataobj) for p in folder.glob(f"*{ending}")}


def infer(bundle: Path, source: Path, target: Path, **settings: object) -> dict[str, np.ndarray]:
    """Label maps of the bundle, in this process."""
    config = str(bundle / "configs" / "inference.json")
    override = {"bundle_root": str(bundle), "dataset_dir": str(source), "output_dir": str(target)}
    override |= {"separate_folder": False, **settings}
    workflow = ConfigWorkflow(config, workflow_type="infer", logging_file=False, **override)
    workflow.initialize()
    workflow.run()
    return label_maps(target, "_0000_seg.nii.gz")


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys() and len(found) == 3
    differing = {case: int((found[case] != expected[case]).sum()) for case in expected}
    assert set(differing.values()) == {0}, differing
    # a constant map would agree by accident
    assert len({int(value) for case in expected.values() for value in np.unique(case)}) > 1


@pytest.mark.parametrize("name", IMAGES)
def test_label_maps_are_nnu_net_s_voxel_for_voxel(world, tmp_path, name):
    found = infer(world.bundle(name), world.images(name), tmp_path)
    assert_equal(found, label_maps(world.folder / "nnunet" / name, ".nii.gz"))


@pytest.mark.parametrize("name", [name for name in IMAGES if name != ENSEMBLE])
def test_logits_are_nnu_net_s(world, name):
    folder = world.folder / "nnunet" / name
    with torch.no_grad():
        found = BundleFolder(world.bundle(name)).network()(torch.from_numpy(np.load(folder / "patch.npy")))
    np.testing.assert_allclose(found.numpy(), np.load(folder / "logits.npy"), atol=1e-5, rtol=0)


def test_the_comparison_would_notice_stock_windows(world, tmp_path):
    stock = {"_target_": "SlidingWindowInferer", "roi_size": "@patch_size", "overlap": 0.5, "mode": "gaussian"}
    found = infer(world.bundle(HIPPOCAMPUS), world.images(HIPPOCAMPUS), tmp_path, inferer=stock)
    expected = label_maps(world.folder / "nnunet" / HIPPOCAMPUS, ".nii.gz")
    assert (found["large"] != expected["large"]).sum() > 5


# neither package can be imported, installed or not
WITHOUT_US = (
    "import sys; sys.modules.update(dcd_ext=None, nnunetv2=None); import runpy; sys.argv[0] = 'monai.bundle'; "
    "runpy.run_module('monai.bundle', run_name='__main__')"
)


@pytest.mark.parametrize("name", [HIPPOCAMPUS, ENSEMBLE])
def test_a_student_distilled_from_it_runs_in_nnu_net(world, tmp_path, name):
    """Distilled by features of one fold, by features and outputs of the ensemble; two epochs each."""
    root = world.bundle(name, "student_dcd")
    methods = [root / "configs" / "methods" / "combined.json"] if name == ENSEMBLE else []
    files = [str(file) for file in (root / "configs" / "train.json", *methods)]
    override = {"bundle_root": str(root), "dataset_dir": str(root.parent), "kd_schedule": 0.5, "allow_unchecked": True}
    workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, **override, **FEW, **SHORT)
    workflow.initialize()
    workflow.run()
    assert dcd(["export-nnunet", str(root), "--output", str(tmp_path / "results")]) == 0
    [model] = (tmp_path / "results" / HIPPOCAMPUS).iterdir()
    folders = ["-i", world.images(name), "-o", tmp_path / "nnunet", "-m", model, "-f", "0"]
    options = ["-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    in_nnunet("nnUNetv2_predict_from_modelfolder", *folders, *options)
    command = [sys.executable, "-c", WITHOUT_US, "run", "inference", "--bundle_root", str(root)]
    command += ["--config_file", str(root / "configs" / "inference.json"), "--dataset_dir", str(world.images(name))]
    call([*command, "--output_dir", str(tmp_path / "bundle"), "--separate_folder", "False"], PYTHONPATH="")
    found = label_maps(tmp_path / "bundle", "_0000_seg.nii.gz")
    assert_equal(found, label_maps(tmp_path / "nnunet", ".nii.gz"))


# of the Decathlon's layout, below the folder of the real data
SETS = ("Task04_Hippocampus", "LPBA40_2mm", "TCGA_LGG_FLAIR")


@pytest.fixture(scope="session")
def plans(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the plans that nnU-Net's residual-encoder planner M makes for the sets, and its plain planner."""
    kept = os.environ.get("DCD_NNUNET_MODELS")
    folder = Path(kept, "plans") if kept else tmp_path_factory.mktemp("plans")
    if not (folder / f"{SETS[-1]}_plain.json").is_file():
        in_nnunet("python", HERE / "plan.py", folder, *(data_root / name for name in SETS))
    return folder


@pytest.mark.parametrize("name", SETS)
def test_a_new_task_is_planned_as_by_nnu_net_and_trains(name, plans, data_root, tmp_path):
    """Axes x, y, z here and z, y, x there; the batch is the plain planner's, its comment states the other's."""
    task_file = tmp_path / "planned.json"
    assert dcd(["new-task", str(data_root / name), "--output", str(task_file)]) == 0
    task, theirs = read_json(task_file), read_json(plans / f"{name}.json")
    assert theirs["transpose_forward"] == [0, 1, 2]
    chosen, ours = theirs["configurations"]["3d_fullres"], task["common"]
    network = chosen["architecture"]["arch_kwargs"]
    assert ours["pixdim"] == pytest.approx(chosen["spacing"][::-1])
    assert ours["patch_size"] == chosen["patch_size"][::-1]
    assert ours["strides"] == [stride[::-1] for stride in network["strides"]]
    assert (ours["features"], ours["n_blocks"]) == (network["features_per_stage"], network["n_blocks_per_stage"])
    kernels = task["fragments"].get("network_def", {}).get("kernel_sizes", [[3, 3, 3]] * network["n_stages"])
    assert kernels == [kernel[::-1] for kernel in network["kernel_sizes"]]
    assert chosen["normalization_schemes"] == ["ZScoreNormalization"]
    assert [task["fragments"]["normalize_nonzero"]] == chosen["use_mask_for_norm"]
    assert f"encoder takes {chosen['batch_size']}, as many" in task["comments"]["batch_size"]
    plain = read_json(plans / f"{name}_plain.json")["configurations"]["3d_fullres"]
    assert plain["batch_size"] == task["train"]["batch_size"]
    assert (plain["spacing"], plain["patch_size"]) == (chosen["spacing"], chosen["patch_size"])
    assert dcd(["build", str(task_file), "--output", str(tmp_path / "bundles")]) == 0
    command = task["readme"]["prepare"].split()[1:]
    command[command.index("--source") + 1], command[-1] = str(data_root / name), str(tmp_path / "data")
    assert dcd(command) == 0
    root = tmp_path / "bundles" / "planned_segmentation_teacher"
    override = {"bundle_root": str(root), "dataset_dir": str(tmp_path / "data"), "allow_unchecked": True}
    # the planned patch and stages; as narrow as one core can train them
    override |= {"reduction_factor": 16, "min_features": 4, "batch_size": 1, **FEW}
    override |= {**SHORT, "max_epochs": 1}
    config = str(root / "configs" / "train.json")
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **override)
    workflow.initialize()
    workflow.run()
    assert read_json(root / "eval" / "training.json")["epochs"]
