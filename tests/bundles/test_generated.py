"""The committed bundles: complete, equal where they have to be, and in step with their sources."""

import json
import os
import re
import shutil
from copy import deepcopy

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.networks import deep_supervision_weights
from scripts import build_bundles
from tests.conftest import BUNDLES, ROLES, ROOT, TASKS, read_json

NAMES = [f"{task}_segmentation_{role}" for task in TASKS for role in ROLES]
# what a distilled student's train.json has beside the plain student's
DISTILLATION = {
    "teacher_ckpt",
    "teacher_cases",
    "teacher_min_features",
    "teacher_reduction_factor",
    "teacher_def",
    "teacher",
    "kd_stages",
    "taps",
    "teacher_taps",
    "kd_loss_def",
    "kd_loss",
    "kd_weight",
    "kd_schedule",
}


def config(name, file="train"):
    return read_json(BUNDLES / name / "configs" / f"{file}.json")


def test_there_are_nine():
    assert sorted(p.name for p in BUNDLES.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bundle_is_complete(name):
    for path in ("LICENSE", "docs/README.md", "configs/logging.conf", "models/.gitkeep"):
        assert (BUNDLES / name / path).is_file()
    for file in ("metadata", "train", "evaluate", "inference", "multi_gpu_train"):
        assert config(name, file)


@pytest.mark.parametrize("name", NAMES)
def test_configs_hold_no_macro_and_no_machine_path(name):
    for path in (BUNDLES / name / "configs").glob("*.json"):
        text = path.read_text("utf-8")
        assert '"%' not in text, path
        assert not re.search(r'"/(?!workspace/)', text), path


@pytest.mark.parametrize("task", TASKS)
def test_student_is_the_teacher_but_for_its_width(task):
    teacher, student = (config(f"{task}_segmentation_{role}") for role in ("teacher", "student"))
    assert (teacher.pop("reduction_factor"), student.pop("reduction_factor")) == (1, 4)
    assert teacher == student


@pytest.mark.parametrize("task", TASKS)
def test_dcd_student_is_the_student_plus_distillation(task):
    student, dcd = (config(f"{task}_segmentation_{role}") for role in ("student", "student_dcd"))
    assert {key: dcd.pop(key) for key in set(dcd) - set(student)}.keys() == DISTILLATION
    handlers = [dcd["train"]["handlers"].pop()["_target_"] for _ in range(2)]
    assert handlers == ["dcd_ext.distill.DistillationHandler", "dcd_ext.distill.TeacherCheck"]
    assert dcd["train"]["resume_state"].pop("kd_loss") == "@kd_loss"
    assert dcd["train"]["optimizer"].pop("params") == (
        "$[{'params': list(@network.parameters())}, {'params': [p for p in @kd_loss.parameters() if p.requires_grad]}]"
    )
    assert student["train"]["optimizer"].pop("params") == "$list(@network.parameters())"
    assert dcd == student


@pytest.mark.parametrize("task", TASKS)
def test_distillation_leaves_no_trace_at_inference(task):
    folders = [BUNDLES / f"{task}_segmentation_{role}" / "configs" for role in ("student", "student_dcd")]
    for file in ("inference", "evaluate", "fast_cpu", "multi_gpu_train"):  # so one of the two is run by other tests
        student, dcd = ((folder / f"{file}.json").read_bytes() for folder in folders)
        assert student == dcd
    assert b"dcd_ext" not in (folders[1] / "inference.json").read_bytes()


def dcd_names(train):
    return set(re.findall(r"dcd_ext\.[\w.]*\w", json.dumps(train)))


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("task", TASKS)
def test_plain_training_is_short_and_made_of_stock_parts(task, role):
    """What is not stock is explained in the bundle's README; what one changes first stands first."""
    train = config(f"{task}_segmentation_{role}")
    assert len(train) <= 35 and len(dcd_names(train)) <= 5
    readme = (BUNDLES / f"{task}_segmentation_{role}" / "docs" / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(dcd_ext\.[\w.]+)` \|", readme, re.MULTILINE)) == dcd_names(train)
    assert list(train)[1:8] == [
        *("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "fold", "max_epochs", "iterations_per_epoch")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_transform_is_idle_and_flips_are_the_tasks(name):
    transforms = config(name)["train"]["random_transforms"]
    assert all(t.get("prob", 1) > 0 for t in transforms)
    task = read_json(ROOT / "bundle_src" / "tasks" / f"{name.split('_')[0]}.json")
    flips = [t["spatial_axis"] for t in transforms if t["_target_"] == "RandFlipd"]
    assert flips == task["fragments"]["mirror_axes"]


@pytest.mark.parametrize("name", NAMES)
def test_one_separator_and_no_file_twice(name):
    files = sorted((BUNDLES / name / "configs").rglob("*.json"))
    for path in files:
        assert not re.search(r'"[^"\s]*\w#\w', path.read_text("utf-8")), path
    assert len({path.read_bytes() for path in files}) == len(files)


@pytest.mark.parametrize("hidden", [True, False])
def test_number_of_workers_on_every_system(hidden, monkeypatch):
    """macOS and Windows have no ``os.sched_getaffinity``."""
    if hidden:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 7, 9}, raising=False)
    train = config(NAMES[0])
    parser = ConfigParser({"imports": train["imports"], "num_workers": train["num_workers"]})
    parser.parse()
    assert parser.get_parsed_content("num_workers") == 2


@pytest.mark.parametrize("stages", [2, 3, 4, 6])
def test_deep_supervision_weights_are_nnunets(stages):
    train = config(NAMES[0])
    parser = ConfigParser({"strides": [[1] * 3] * stages, "weights": train["loss"]["weights"]})
    expected = deep_supervision_weights(stages - 1)
    assert parser.get_parsed_content("weights")[: stages - 1] == expected


@pytest.mark.parametrize("name", NAMES)
def test_readme_shows_the_measured_dice_or_how_to_get_it(name):
    readme = (BUNDLES / name / "docs" / "README.md").read_text("utf-8")
    measured = ROOT / "bundle_src" / "results" / f"{name}.json"
    if not measured.is_file():
        assert "No trained weights yet" in readme and config(name, "metadata")["eval_metrics"] == {}
        return
    scores = read_json(measured)
    assert config(name, "metadata")["eval_metrics"] == scores
    (row,) = re.findall(r"^\| ([\d,]+) \| (.*) \|$", readme, re.MULTILINE)
    assert row[1].split(" | ") == [f"{m:.4f} ± {scores['dice_sem'][c]:.4f}" for c, m in scores["dice"].items()]
    assert f"{row[0]} parameters" in readme.replace("\n", " ")
    assert all(value == round(value, 4) for key in ("dice", "dice_sem") for value in scores[key].values())


def test_polynomial_decay_is_the_closed_form_over_a_run():
    entry = config(NAMES[0])["train"]["lr_scheduler"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=1000, power=entry["power"])
    assert entry["_target_"] == "torch.optim.lr_scheduler.PolynomialLR"
    for epoch in range(1001):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 - epoch / 1000) ** 0.9, rel=1e-11)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", NAMES)
def test_training_and_inference_build_the_same_network(name):
    train, inference = config(name), config(name, "inference")
    assert [c["network_def"].pop("deep_supervision") for c in (train, inference)] == [True, False]
    for key in ("network_def", "features", "strides", "n_blocks", "in_channels", "num_classes", "reduction_factor"):
        assert train[key] == inference[key]
    assert train["validate"]["inferer"] == inference["inferer"]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_fits_schema_and_configs(name):
    metadata, train = config(name, "metadata"), config(name)
    assert metadata["version"] in metadata["changelog"]
    for group, key in (("inputs", "in_channels"), ("outputs", "num_classes")):
        (spec,) = metadata["network_data_format"][group].values()
        assert spec["num_channels"] == len(spec["channel_def"]) == train[key]
        assert spec["spatial_shape"] == train["patch_size"]
    outputs = metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()
    assert list(outputs)[1:] == config(name, "evaluate")["class_names"]
    required = ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"]
    required += ["task", "description", "authors", "copyright", "network_data_format"]
    jsonschema.validate(metadata, {"type": "object", "required": required})


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_those_of_the_constraints(name):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    metadata = config(name, "metadata")
    assert metadata["monai_version"] == pins["monai"] and metadata["pytorch_version"] == pins["torch"]
    assert all(pins[package] == version for package, version in metadata["required_packages_version"].items())


@pytest.mark.parametrize("name", NAMES)
def test_patch_is_divisible_by_the_strides(name):
    train = config(name)
    for axis, side in enumerate(train["patch_size"]):
        factor = 1
        for stride in train["strides"]:
            factor *= stride[axis]
        assert side % factor == 0


def test_meta_is_kept_up_to_the_last_spatial_transform():
    transforms = config("brats24_segmentation_teacher")["train"]["random_transforms"]
    without_meta = [i for i, t in enumerate(transforms) if t.get("track_meta") is False]
    assert without_meta == [len(transforms) - 1]


@pytest.fixture
def copy_of_bundles(tmp_path):
    shutil.copytree(BUNDLES, tmp_path / "bundles", ignore=shutil.ignore_patterns("*.pt", "eval"))
    return tmp_path / "bundles"


def test_check_passes_on_what_is_committed(capsys):
    build_bundles.main(["--check"])
    assert "files are up to date" in capsys.readouterr().out


def test_check_fails_on_any_difference_and_build_repairs_it(copy_of_bundles):
    path = copy_of_bundles / "brats24_segmentation_student" / "configs" / "train.json"
    path.write_text(path.read_text("utf-8").replace('"learning_rate": 0.01', '"learning_rate": 0.02'), "utf-8")
    extra = copy_of_bundles / "brats24_segmentation_student" / "configs" / "stray.json"
    extra.write_text("{}")
    with pytest.raises(UserError) as caught:
        build_bundles.main(["--check", "--output", str(copy_of_bundles)])
    message = str(caught.value)
    assert "2 generated file(s) differ from bundle_src – brats24_segmentation_student/configs/train.json" in message
    assert "run: python scripts/build_bundles.py" in message
    build_bundles.main(["--output", str(copy_of_bundles)])
    build_bundles.main(["--check", "--output", str(copy_of_bundles)])
    assert not extra.exists()


def test_a_made_up_task_needs_one_file(tmp_path):
    """Adding a data set is one file."""
    task = deepcopy(read_json(ROOT / "bundle_src" / "tasks" / "hippocampus.json"))
    task["common"].update(in_channels=2, num_classes=4)
    task["evaluate"]["class_names"] = ["a", "b", "c"]
    task["metadata"].update(inputs=["T1", "T2"], outputs=["background", "a", "b", "c"])
    (tmp_path / "spine.json").write_text(json.dumps(task))
    assert dcd(["build", str(tmp_path / "spine.json"), "--output", str(tmp_path / "bundles")]) == 0
    made = sorted(p.name for p in (tmp_path / "bundles").iterdir())
    assert made == sorted(f"spine_segmentation_{role}" for role in ROLES)
    train = read_json(tmp_path / "bundles" / "spine_segmentation_student" / "configs" / "train.json")
    assert train["in_channels"] == 2 and train["reduction_factor"] == 4
