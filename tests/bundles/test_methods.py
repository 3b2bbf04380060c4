"""Every distillation method by its one config file, on small data."""

import pytest
import torch
from monai.bundle import ConfigParser

from tests.conftest import BUNDLES, SHORT, SMALL, make_workflow, read_json

METHODS = sorted(p.stem for p in (BUNDLES / "hippocampus_segmentation_student_dcd/configs/methods").glob("*.json"))
NAME = "hippocampus_segmentation_student_dcd"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Random weights of a small teacher: enough to run every loss."""
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    config = {**read_json(BUNDLES / "hippocampus_segmentation_teacher/configs/inference.json"), **SMALL["hippocampus"]}
    config["features"] = [16] * 4
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), path)
    return str(path)


def test_all_methods_of_the_paper_are_there():
    assert {"logits", "feature", "cwd", "ifvd", "recokd", "kd_segmentator"} <= set(METHODS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
@pytest.mark.parametrize("method", METHODS)
def test_method_trains_through_the_bundle(method, teacher, prepared, tmp_path):
    settings = {**SMALL["hippocampus"], **SHORT, "features": [16] * 4}
    workflow = make_workflow(
        NAME,
        "train",
        f"methods/{method}",
        dataset_dir=str(prepared("hippocampus")),
        output_dir=str(tmp_path),
        ckpt_dir=str(tmp_path / "models"),
        teacher_ckpt=teacher,
        **{**settings, "kd_schedule#ramp": 0.5} if "Warmup" in schedule(method) else settings,
    )
    workflow.run()
    last = read_json(tmp_path / "training.json")["epochs"][-1]
    assert last["kd_weight"] > 0 and last["kd_loss"] > 0
    assert last["loss"] == pytest.approx(last["seg_loss"] + last["kd_weight"] * last["kd_loss"], rel=1e-4)
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    plain = {**read_json(BUNDLES / "hippocampus_segmentation_student/configs/inference.json"), **settings}
    ConfigParser(plain).get_parsed_content("network_def").load_state_dict(state, strict=True)


def schedule(method):
    return read_json(BUNDLES / NAME / "configs" / "methods" / f"{method}.json")["kd_schedule"]["_target_"]
