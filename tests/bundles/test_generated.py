"""The committed bundles: complete, equal where they have to be, and in step with their sources."""

import json
import re
import shutil
from copy import deepcopy

import jsonschema
import pytest

from dcd_ext.commands.main import main as dcd
from scripts import build_bundles
from tests.conftest import BUNDLES, ROLES, ROOT, TASKS, read_json

NAMES = [f"{task}_segmentation_{role}" for task in TASKS for role in ROLES]
# what a distilled student's train.json has beside the plain student's
DISTILLATION = {
    "teacher_ckpt",
    "teacher_min_features",
    "teacher_reduction_factor",
    "teacher_def",
    "teacher",
    "kd_stages",
    "taps",
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
    handler = dcd["train"]["handlers"].pop()
    assert handler["_target_"] == "dcd_ext.distill.DistillationHandler"
    assert dcd["resume_state"].pop("kd_loss") == "@kd_loss"
    assert dcd.pop("parameter_groups") == (
        "$[{'params': list(@network.parameters())}, {'params': [p for p in @kd_loss.parameters() if p.requires_grad]}]"
    )
    assert student.pop("parameter_groups") == "$[{'params': list(@network.parameters())}]"
    assert dcd == student


@pytest.mark.parametrize("task", TASKS)
def test_distillation_leaves_no_trace_at_inference(task):
    student, dcd = (config(f"{task}_segmentation_{role}", "inference") for role in ("student", "student_dcd"))
    assert student == dcd
    assert "dcd_ext" not in json.dumps(dcd)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_inference_build_the_same_network(name):
    train, inference = config(name), config(name, "inference")
    for key in ("network_def", "features", "strides", "n_blocks", "in_channels", "num_classes", "reduction_factor"):
        assert train[key] == inference[key]
    assert train["train"]["deterministic_transforms"] == inference["preprocessing"]["transforms"]
    assert train["validate"]["inferer"] == inference["inferer"]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_fits_schema_and_configs(name):
    metadata, train = config(name, "metadata"), config(name)
    assert metadata["version"] in metadata["changelog"]
    for group, key in (("inputs", "in_channels"), ("outputs", "num_classes")):
        (spec,) = metadata["network_data_format"][group].values()
        assert spec["num_channels"] == len(spec["channel_def"]) == train[key]
        assert spec["spatial_shape"] == train["patch_size"]
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1:] == train["class_names"]
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
    assert build_bundles.main(["--check"]) == 0
    assert "files are up to date" in capsys.readouterr().out


def test_check_fails_on_any_difference_and_build_repairs_it(copy_of_bundles, capsys):
    path = copy_of_bundles / "brats24_segmentation_student" / "configs" / "train.json"
    path.write_text(path.read_text("utf-8").replace('"learning_rate": 0.01', '"learning_rate": 0.02'), "utf-8")
    extra = copy_of_bundles / "brats24_segmentation_student" / "configs" / "stray.json"
    extra.write_text("{}")
    assert build_bundles.main(["--check", "--output", str(copy_of_bundles)]) == 1
    message = capsys.readouterr().err
    assert "2 generated file(s) differ from bundle_src – brats24_segmentation_student/configs/train.json" in message
    assert "run: python scripts/build_bundles.py" in message
    assert build_bundles.main(["--output", str(copy_of_bundles)]) == 0
    assert build_bundles.main(["--check", "--output", str(copy_of_bundles)]) == 0 and not extra.exists()


def test_a_made_up_task_needs_one_file(tmp_path):
    """Adding a data set is one file."""
    task = deepcopy(read_json(ROOT / "bundle_src" / "tasks" / "hippocampus.json"))
    task["common"].update(in_channels=2, num_classes=4)
    task["train"]["class_names"] = ["a", "b", "c"]
    task["metadata"].update(inputs=["T1", "T2"], outputs=["background", "a", "b", "c"])
    (tmp_path / "spine.json").write_text(json.dumps(task))
    assert dcd(["build", str(tmp_path / "spine.json"), "--output", str(tmp_path / "bundles")]) == 0
    made = sorted(p.name for p in (tmp_path / "bundles").iterdir())
    assert made == sorted(f"spine_segmentation_{role}" for role in ROLES)
    train = read_json(tmp_path / "bundles" / "spine_segmentation_student" / "configs" / "train.json")
    assert train["in_channels"] == 2 and train["reduction_factor"] == 4
