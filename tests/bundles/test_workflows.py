"""Shipped configs as workflows: MONAI's properties, and what inference says when something is missing."""

import contextlib
import json
import re
import shutil

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.errors import first_cause
from tests.conftest import BUNDLES, SMALL, TASKS, make_workflow, read_json

# MONAI announces that its own default of NormalizeIntensity's and others' arguments will change
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")
NAME = "hippocampus_segmentation_student"


def infer(**override):
    workflow = make_workflow(NAME, "inference", kind="infer", **SMALL["hippocampus"], **override)
    workflow.run()
    workflow.finalize()
    return workflow


@contextlib.contextmanager
def raises_line(pattern):
    """An error of the bundle's own package, which MONAI wraps."""
    with pytest.raises(RuntimeError) as caught:
        yield
    assert re.search(pattern, str(first_cause(caught.value)))


@pytest.fixture
def weights(tmp_path):
    """Random weights of the small student."""
    config = {**read_json(BUNDLES / NAME / "configs" / "inference.json"), **SMALL["hippocampus"]}
    path = tmp_path / "weights" / "model.pt"
    path.parent.mkdir()
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), path)
    return str(path)


def test_inference_without_weights_ends_with_one_line(prepared, tmp_path):
    with raises_line(r"weights not found – .*model.pt – expected a checkpoint, found no such file"):
        infer(dataset_dir=str(prepared("hippocampus")), ckpt_path=str(tmp_path / "model.pt"))


@pytest.mark.parametrize("content", [None, {"training": [{"image": "a.nii.gz", "fold": 0}]}])
def test_inference_without_an_image_ends_with_one_line(weights, tmp_path, content):
    """Labelled cases of the held-out fold are no test cases."""
    if content is not None:
        (tmp_path / "datalist.json").write_text(json.dumps(content))
    with raises_line(r"no image – .* – expected test entries in datalist.json"):
        infer(dataset_dir=str(tmp_path), ckpt_path=weights)


def test_a_relative_folder_without_a_data_list_is_segmented(prepared, weights, tmp_path, monkeypatch):
    data = prepared("hippocampus")
    image = data / read_json(data / "datalist.json")["test"][0]["image"]
    (tmp_path / "some [1] images").mkdir()
    shutil.copy(image, tmp_path / "some [1] images" / "case.nii.gz")
    monkeypatch.chdir(tmp_path)
    infer(dataset_dir="some [1] images", ckpt_path=weights, output_dir=str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["case_seg.nii.gz"]


# the teacher's configs are the student's but for the width, both students' inference is the same: test_generated.py
@pytest.mark.parametrize(
    ("task", "role", "configs"),
    [
        *((task, "student_dcd", configs) for task in TASKS for configs in (["train"], ["train", "evaluate"])),
        *((task, "student", ["inference"]) for task in TASKS),
        ("hippocampus", "student", ["train"]),
    ],
)
def test_monai_finds_its_properties(task, role, configs, prepared, tmp_path):
    kind = "infer" if configs == ["inference"] else "train"
    override = {**SMALL[task], "dataset_dir": str(prepared(task)), "num_workers": 0}
    if role == "student_dcd":
        override["teacher_ckpt"] = str(tmp_path / "model.pt")
        config = read_json(BUNDLES / f"{task}_segmentation_teacher" / "configs" / "inference.json")
        network = ConfigParser({**config, **SMALL[task]}).get_parsed_content("network_def")
        torch.save(network.state_dict(), tmp_path / "model.pt")
    workflow = make_workflow(f"{task}_segmentation_{role}", *configs, kind=kind, **override)
    assert workflow.check_properties() == []
