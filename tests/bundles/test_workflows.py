"""Every shipped config end to end on small data: train, evaluate, infer."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.exact import assert_same_files, losses_of, run_until
from tests.conftest import ROLES, SHORT, SMALL, TASKS, make_workflow, read_json

pytestmark = [
    pytest.mark.slow,
    # MONAI announces that its own default of NormalizeIntensity's and others' arguments will change
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared):
    """Folder with trained weights of a small bundle, each trained once."""
    root = tmp_path_factory.mktemp("trained")
    done = {}

    def train(task, role):
        if (task, role) not in done:
            folder = root / task / role
            override = {**SMALL[task], **SHORT, "dataset_dir": str(prepared(task))}
            if role == "student_dcd":
                override["teacher_ckpt"] = str(train(task, "teacher") / "models" / "model.pt")
                override["kd_schedule"] = {"_target_": "dcd_ext.distill.schedules.ConstantWeight", "weight": 0.1}
            run(task, role, "train", folder=folder, **override)
            done[task, role] = folder
        return done[task, role]

    return train


def run(task, role, *configs, folder, kind="train", **override):
    workflow = make_workflow(
        f"{task}_segmentation_{role}",
        *configs,
        kind=kind,
        output_dir=str(folder),
        **({"ckpt_dir": str(folder / "models")} if configs[0] == "train" else {}),
        **override,
    )
    workflow.run()
    workflow.finalize()
    return workflow


def read_json_config(task, role, file):
    from tests.conftest import BUNDLES

    return read_json(BUNDLES / f"{task}_segmentation_{role}" / "configs" / f"{file}.json")


def test_both_students_have_the_same_keys(trained):
    states = [
        torch.load(trained("hippocampus", role) / "models" / "model.pt", weights_only=True)
        for role in ("student", "student_dcd")
    ]
    assert list(states[0]) == list(states[1])
    assert [v.shape for v in states[0].values()] == [v.shape for v in states[1].values()]


def test_evaluation_scores_the_untouched_label_file(trained, prepared, tmp_path):
    """Dice of metrics.json equals NumPy's on the masks that inference writes for the same cases."""
    folder, common = trained("brats24", "student"), {**SMALL["brats24"], "num_workers": 0}
    data = prepared("brats24")
    run("brats24", "student", "train", "evaluate", folder=folder, dataset_dir=str(data), **common)
    metrics = read_json(folder / "metrics.json")
    held_out = [c for c in read_json(data / "datalist.json")["training"] if c["fold"] == 0]
    assert sorted(c["case"] for c in held_out) == list(metrics["cases"])
    entry = held_out[0]
    images = [[str(data / f) for f in entry["image"]]]
    weights = str(folder / "models" / "model.pt")
    override = {"dataset_dir": str(data), "datalist": images, "ckpt_path": weights, **common}
    run("brats24", "student", "inference", folder=tmp_path, kind="infer", **override)
    pred = np.asarray(nib.load(next(tmp_path.rglob("*_seg.nii.gz"))).dataobj)
    truth = np.asarray(nib.load(data / entry["label"]).dataobj)
    for value, name in enumerate(metrics["class_names"], start=1):
        p, t = pred == value, truth == value
        expected = 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else None
        assert metrics["cases"][entry["case"]]["classes"][name]["dice"] == pytest.approx(expected, abs=1e-6)


def hippocampus(role, prepared, folder, **override):
    settings = {**SMALL["hippocampus"], **SHORT, **override}
    return make_workflow(
        f"hippocampus_segmentation_{role}",
        "train",
        dataset_dir=str(prepared("hippocampus")),
        output_dir=str(folder),
        ckpt_dir=str(folder / "models"),
        **settings,
    )


def test_weight_zero_gives_the_plain_students_losses_bit_for_bit(trained, prepared, tmp_path):
    teacher = str(trained("hippocampus", "teacher") / "models" / "model.pt")
    plain = hippocampus("student", prepared, tmp_path / "plain")
    plain_losses = losses_of(plain)
    plain.run()
    distilled = hippocampus("student_dcd", prepared, tmp_path / "dcd", teacher_ckpt=teacher, kd_weight=0.0)
    losses = losses_of(distilled)
    distilled.run()
    assert losses == plain_losses and len(losses) == 4
    states = [torch.load(tmp_path / f / "models" / "model.pt", weights_only=True) for f in ("plain", "dcd")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_an_interrupted_run_resumes_exactly(trained, prepared, tmp_path):
    override = {
        "teacher_ckpt": str(trained("hippocampus", "teacher") / "models" / "model.pt"),
        "kd_schedule": {"_target_": "dcd_ext.distill.schedules.WarmupWeight", "weight": 0.1, "ramp": 1.0},
        "max_epochs": 4,
    }
    whole = hippocampus("student_dcd", prepared, tmp_path / "whole", **override)
    whole_losses = losses_of(whole)
    whole.run()

    first = hippocampus("student_dcd", prepared, tmp_path / "parts", **override)
    first_losses = losses_of(first)
    run_until(first, epoch=3)
    second = hippocampus("student_dcd", prepared, tmp_path / "parts", resume=True, **override)
    second_losses = losses_of(second)
    second.run()
    assert first_losses + second_losses == whole_losses and len(whole_losses) == 8
    assert_same_files(tmp_path / "whole", tmp_path / "parts", "models/model.pt", "checkpoint_last.pt")


def test_projections_are_trained_saved_and_absent_from_the_model(trained):
    folder = trained("hippocampus", "student_dcd")
    checkpoint = torch.load(folder / "checkpoint_last.pt", weights_only=True)
    projections = checkpoint["kd_loss"]
    assert len(projections) == 8 and all("projections" in k for k in projections)
    assert not any("projections" in k for k in torch.load(folder / "models" / "model.pt", weights_only=True))
    from dcd_ext.losses import DCDLoss

    fresh = DCDLoss([8] * 4, [8] * 4).state_dict()
    assert all(not torch.equal(fresh[k], projections[k]) for k in fresh if k.endswith("weight"))


def cause(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def test_missing_teacher_says_what_to_do(prepared, tmp_path):
    path = str(tmp_path / "nowhere" / "model.pt")
    workflow = hippocampus("student_dcd", prepared, tmp_path, teacher_ckpt=path)
    with pytest.raises(RuntimeError) as error:
        workflow.run()
    assert cause(error.value) == (
        f"weights not found – {path} – expected a checkpoint, found no such file – "
        "train the teacher bundle first, or pass --teacher_ckpt <its models/model.pt>"
    )


def test_inference_without_weights_ends_with_one_line(prepared, tmp_path):
    override = {"dataset_dir": str(prepared("hippocampus")), "ckpt_path": str(tmp_path / "model.pt")}
    with pytest.raises(
        SystemExit, match=r"model weights not found – .*model.pt – expected a state dict, found no such"
    ):
        run("hippocampus", "student", "inference", folder=tmp_path, kind="infer", **override)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("configs", [("train",), ("train", "evaluate"), ("inference",)])
def test_monai_finds_its_properties(task, role, configs, prepared, tmp_path):
    kind = "infer" if configs == ("inference",) else "train"
    override = {**SMALL[task], "dataset_dir": str(prepared(task)), "num_workers": 0}
    if role == "student_dcd" and kind == "train":
        override["teacher_ckpt"] = str(tmp_path / "model.pt")
        state = ConfigParser({**read_json_config(task, "teacher", "inference"), **SMALL[task]})
        torch.save(state.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    workflow = make_workflow(f"{task}_segmentation_{role}", *configs, kind=kind, **override)
    assert workflow.check_properties() == []
