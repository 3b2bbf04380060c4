"""Every distillation method by its one config file, on small data."""

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.errors import user_error
from tests.bundles.exact import assert_same_files, losses_of, run_until
from tests.conftest import BUNDLES, SHORT, SMALL, make_workflow, read_json

NAME = "hippocampus_segmentation_student_dcd"
METHODS = ["dcd", *sorted(p.stem for p in (BUNDLES / NAME / "configs" / "methods").glob("*.json"))]
SETTINGS = {**SMALL["hippocampus"], **SHORT, "features": [16] * 4}
warns = pytest.mark.filterwarnings("ignore::FutureWarning:monai")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Random weights of a small teacher: enough to run every loss."""
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    config = {**read_json(BUNDLES / "hippocampus_segmentation_teacher/configs/inference.json"), **SETTINGS}
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def options(teacher, prepared):
    """What all runs here have in common; the prompts of FreeKD are tuned by the bundle's own command."""
    where = {"dataset_dir": str(prepared("hippocampus")), "teacher_ckpt": str(teacher)}
    folder = str(teacher.parent)
    tuning = {**SETTINGS, **where, "ckpt_dir": folder, "prompt_iterations": 2}
    make_workflow(NAME, "train", "methods/freekd", run_id="tune_prompts", **tuning).run()
    return where


def open_method(method, options, folder, teacher, **override):
    """A run of three epochs of one step each: before, in, and at the end of the shipped ramp."""
    configs = ["train", *([] if method == "dcd" else [f"methods/{method}"])]
    override |= {"prompts": str(teacher.parent / "prompts.pt")} if method == "freekd" else {}
    where = {"output_dir": str(folder), "ckpt_dir": str(folder / "models"), **options}
    return make_workflow(
        NAME, *configs, **{**SETTINGS, "max_epochs": 3, "iterations_per_epoch": 1, **where}, **override
    )


def test_all_methods_of_the_papers_are_there():
    assert {"dcd", "logits", "feature", "cwd", "ifvd", "freekd", "recokd"} <= set(METHODS)


@warns
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_method_trains_and_resumes_exactly_through_the_bundle(method, options, teacher, tmp_path):
    whole = open_method(method, options, tmp_path / "whole", teacher)
    untrained = {k: v.clone() for k, v in whole.parser.get_parsed_content("kd_loss").state_dict().items()}
    whole_losses = losses_of(whole)
    whole.run()
    last = read_json(tmp_path / "whole" / "training.json")["epochs"][-1]
    assert last["kd_weight"] > 0 and last["kd_loss"] > 0
    assert last["loss"] == pytest.approx(last["seg_loss"] + last["kd_weight"] * last["kd_loss"], rel=1e-4)

    parts = open_method(method, options, tmp_path / "parts", teacher)
    losses = losses_of(parts)
    run_until(parts, epoch=3)
    resumed = open_method(method, options, tmp_path / "parts", teacher, resume=True)
    resumed_losses = losses_of(resumed)
    resumed.run()
    assert losses + resumed_losses == whole_losses and len(whole_losses) == 3
    assert_same_files(tmp_path / "whole", tmp_path / "parts", "models/model.pt", "checkpoint_last.pt")

    trained = torch.load(tmp_path / "parts" / "checkpoint_last.pt", weights_only=True)["kd_loss"]
    assert trained.keys() == untrained.keys()
    changed = [k for k, v in trained.items() if not k.startswith("prompt_") and not torch.equal(v, untrained[k])]
    assert changed or not list(whole.parser.get_parsed_content("kd_loss").parameters())

    state = torch.load(tmp_path / "parts" / "models" / "model.pt", weights_only=True)
    plain = {**read_json(BUNDLES / "hippocampus_segmentation_student/configs/inference.json"), **SETTINGS}
    ConfigParser(plain).get_parsed_content("network_def").load_state_dict(state, strict=True)


@warns
@pytest.mark.slow
def test_weight_zero_gives_the_plain_students_losses_bit_for_bit(options, teacher, tmp_path):
    losses, states = {}, {}
    for name, override in (("student", {}), ("student_dcd", {"kd_weight": 0.0, "teacher_ckpt": str(teacher)})):
        where = {"output_dir": str(tmp_path / name), "ckpt_dir": str(tmp_path / name / "models")}
        settings = {**SETTINGS, **where, "dataset_dir": options["dataset_dir"], **override}
        workflow = make_workflow(f"hippocampus_segmentation_{name}", "train", **settings)
        losses[name] = losses_of(workflow)
        workflow.run()
        states[name] = torch.load(tmp_path / name / "models" / "model.pt", weights_only=True)
    plain, distilled = states.values()
    assert losses["student"] == losses["student_dcd"] and len(losses["student"]) == 4
    assert list(plain) == list(distilled) and all(torch.equal(plain[k], distilled[k]) for k in plain)


@warns
@pytest.mark.slow
def test_a_student_starts_from_the_teachers_channels_and_trains(options, teacher, tmp_path):
    where = {"output_dir": str(tmp_path), "ckpt_dir": str(tmp_path / "models"), **options}
    workflow = make_workflow(NAME, "train", "start_from_teacher", **SETTINGS, **where)
    theirs = torch.load(teacher, weights_only=True)["encoder.stem.convs.0.conv.weight"]
    ours = workflow.parser.get_parsed_content("network").state_dict()["encoder.stem.convs.0.conv.weight"].clone()
    assert len(ours) == 8 and all(any(torch.equal(row, other) for other in theirs) for row in ours)
    workflow.run()
    trained = torch.load(tmp_path / "models" / "model.pt", weights_only=True)["encoder.stem.convs.0.conv.weight"]
    assert not torch.equal(trained, ours) and torch.allclose(trained, ours, atol=0.2)


def test_several_processes_start_from_the_teacher_in_either_order_of_the_files():
    overlays = ["multi_gpu_train", "start_from_teacher"]
    for order in (overlays, overlays[::-1]):
        files = [BUNDLES / NAME / "configs" / f"{name}.json" for name in ("train", *order)]
        config = ConfigParser.load_config_files([str(file) for file in files])
        parser = ConfigParser(config)
        assert (
            "DistributedDataParallel" in parser["network"]["_target_"]
            and parser["network::module"] == "@train::network"
        )
        assert "start_from_teacher(" in parser["train::network"]


@warns
@pytest.mark.slow
def test_tuned_prompts_are_what_the_loss_uses(options, teacher, tmp_path):
    workflow = open_method("freekd", options, tmp_path, teacher)
    loss = workflow.parser.get_parsed_content("kd_loss")
    saved = torch.load(teacher.parent / "prompts.pt", weights_only=True)["prompts"]
    assert [tuple(p.shape) for p in saved] == [(4, 6, 16)] * 4
    assert all(torch.equal(loss.get_buffer(f"prompt_{i}"), p) for i, p in enumerate(saved))
    untuned = workflow.parser.get_parsed_content("prompt_tuner").prompts
    assert all(not torch.equal(p, q) for p, q in zip(untuned, saved, strict=True))
    assert not list(teacher.parent.glob(".tmp-*"))


def test_missing_prompts_say_what_to_do(tmp_path):
    workflow = make_workflow(NAME, "train", "methods/freekd", ckpt_dir=str(tmp_path), **SETTINGS)
    with pytest.raises(RuntimeError) as error:
        workflow.parser.get_parsed_content("kd_loss")
    assert str(user_error(error.value)) == (
        f"tuned prompts not found – {tmp_path}/prompts.pt – expected a file, found none – tune the prompts for this "
        "teacher and these taps first: the same command with 'run tune_prompts', or set prompts='none'"
    )
