"""Weights that make the gradients of distillation and segmentation stand in a wanted ratio."""

import json
import re

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles.tools import open_bundle
from dcd_ext.commands.main import main as dcd
from dcd_ext.distill import PromptTuner
from dcd_ext.distill.calibration import GradientMeter, Norms, calibrate, summarise_norms
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError, user_error
from dcd_ext.losses import FitNetLoss, LogitsLoss
from tests.conftest import BUNDLES, SMALL, ToyNet, make_workflow, read_json

BUNDLE = BUNDLES / "hippocampus_segmentation_student_dcd"
METHODS = ["dcd", *sorted(p.stem for p in (BUNDLE / "configs" / "methods").glob("*.json"))]
SETTINGS = {**SMALL["hippocampus"], "features": [16] * 4, "batch_size": 1}


def toys():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, teacher = ToyNet(2), ToyNet(4)
        image, label = torch.randn(2, 1, 8, 6, 4), torch.randint(2, (2, 1, 8, 6, 4))
    return student, FrozenTeacher(teacher), image, label


def cross_entropy(output, label):
    return torch.nn.functional.cross_entropy(output, label[:, 0])


def slow_norms(student, loss):
    """Norms from a backward pass of its own, over the encoder and over everything."""
    student.zero_grad()
    loss.backward()
    sizes = {name: float((p.grad.double() ** 2).sum()) for name, p in student.named_parameters() if p.grad is not None}
    encoder = sum(v for name, v in sizes.items() if not name.startswith("head"))
    return encoder**0.5, sum(sizes.values()) ** 0.5


@pytest.mark.parametrize("on", ["features", "outputs"])
def test_norms_equal_two_separate_backward_passes(on):
    student, teacher, image, label = toys()
    kd_loss = FitNetLoss([2, 4], [4, 8]) if on == "features" else LogitsLoss()
    taps = ["encoder.stages.0", "encoder.stages.1"] if on == "features" else []
    meter = GradientMeter(student, teacher, cross_entropy, kd_loss, taps)
    norms = meter(image, label)
    seg = slow_norms(student, cross_entropy(student(image), label))
    with torch.no_grad():
        wanted = teacher.network.encoder(image), teacher.network(image)
    kd = slow_norms(student, kd_loss(student.encoder(image), wanted[0], student(image), wanted[1], label))
    assert norms["encoder"] == pytest.approx((seg[0], kd[0]), rel=1e-5)
    assert norms["all"] == pytest.approx((seg[1], kd[1]), rel=1e-5)
    assert (norms["encoder"].kd == norms["all"].kd) == (on == "features")


def test_fitting_trains_the_projections_alone():
    student, teacher, image, label = toys()
    kd_loss = FitNetLoss([2], [4])
    before = [p.detach().clone() for p in student.parameters()]
    meter = GradientMeter(student, teacher, cross_entropy, kd_loss, ["encoder.stages.0"])
    meter.fit([(image, label)] * 500)
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(student.parameters(), before, strict=True))
    # as good as linear least squares
    with torch.no_grad():
        s, t = (n.encoder(image)[0].transpose(0, 1).flatten(1).T for n in (student, teacher.network))
    best = (s @ torch.linalg.lstsq(s, t).solution - t).square().mean().item()
    fitted = (s @ kd_loss.projections[0].weight.detach()[:, :, 0, 0, 0].T - t).square().mean().item()
    assert best <= fitted < 1.02 * best


def test_nothing_is_left_behind():
    student, teacher, image, label = toys()
    before = [p.detach().clone() for p in student.parameters()]
    meter = GradientMeter(student, teacher, cross_entropy, FitNetLoss([2], [4]), ["encoder.stages.0"])
    assert meter(image, label) == meter(image, label)
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(student.parameters(), before, strict=True))
    assert not student.encoder.stages[0]._forward_hooks and not teacher.network.encoder.stages[0]._forward_hooks


def test_proposed_weight_reaches_the_target():
    norms = [Norms(2.0, 8.0), Norms(1.0, 1.0), Norms(1.0, 2.0)]
    summary = summarise_norms(norms, target_ratio=0.3, weight=0.5)
    assert summary == {
        "seg": 1.0,
        "kd": 2.0,
        "ratio": 2.0,
        "ratio_min": 1.0,
        "ratio_max": 4.0,
        "weighted_ratio": 1.0,
        "proposed_weight": pytest.approx(0.15),
    }
    with pytest.raises(UserError, match=r"a gradient vanishes .* found 0 \(kd_loss\), 1 \(loss\)"):
        summarise_norms([*norms, Norms(1.0, 0.0)], 0.3, 0.5)


def test_unusable_gradients_and_a_network_without_encoder():
    student, teacher, image, label = toys()
    meter = GradientMeter(student, teacher, cross_entropy, FitNetLoss([2], [4]), ["encoder.stages.0"])
    with pytest.raises(UserError, match="gradient is not finite"):
        meter(image * float("inf"), label)
    other = GradientMeter(torch.nn.Sequential(student), teacher, cross_entropy, LogitsLoss(), [])
    assert list(other(image, label)) == ["all"]


@pytest.fixture(scope="module")
def where(prepared, tmp_path_factory):
    """Options of the small bundle: data, a teacher and tuned prompts."""
    folder = tmp_path_factory.mktemp("calibration")
    config = {**read_json(BUNDLES / "hippocampus_segmentation_teacher/configs/inference.json"), **SETTINGS}
    torch.save(ConfigParser(config).get_parsed_content("network_def").state_dict(), folder / "model.pt")
    PromptTuner(torch.nn.Identity(), [""] * 4, [16] * 4).save(str(folder / "prompts.pt"))
    return {
        **SETTINGS,
        "dataset_dir": str(prepared("hippocampus")),
        "teacher_ckpt": str(folder / "model.pt"),
        "ckpt_dir": str(folder),
    }


def arguments(options):
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_the_command_measures_every_method(where, tmp_path, capsys):
    output = tmp_path / "calibration.json"
    command = [
        str(BUNDLE),
        "--methods",
        "all",
        "--batches",
        "2",
        "--fit_steps",
        "2",
        "--output",
        str(output),
    ]
    assert dcd(["calibrate", *command, "--target_ratio", "0.25", *arguments(where)]) == 0
    table, content = capsys.readouterr().out, json.loads(output.read_text("utf-8"))
    assert list(content["methods"]) == METHODS and all(f"\n{name} " in table for name in METHODS)
    segs = {tuple(b["seg"] for b in result["encoder"]["batches"]) for result in content["methods"].values()}
    assert len(segs) == 1, "the methods have to see the same batches"
    for name, result in content["methods"].items():
        own = {"none"} if name in ("logits", "cwd", "ifvd") else {"fitted"}
        assert result["projections"] in own, name
        for scope in ("encoder", "all"):
            assert len(result[scope]["batches"]) == 2
            assert result[scope]["proposed_weight"] * result[scope]["ratio"] == pytest.approx(0.25)
    kd = {
        name: {scope: result[scope]["kd"] for scope in ("encoder", "all")}
        for name, result in content["methods"].items()
    }
    assert kd["feature"]["encoder"] == kd["feature"]["all"] and kd["logits"]["encoder"] < kd["logits"]["all"]
    assert kd["cwd_mse_preset"]["encoder"] < 0.2 * kd["cwd_feat"]["encoder"]


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_weights_and_projections_come_from_the_checkpoint(where, tmp_path):
    files = [str(BUNDLE / "configs" / "train.json")]
    parser = make_workflow(BUNDLE.name, "train", **where).parser
    network, kd_loss = parser.get_parsed_content("network"), parser.get_parsed_content("kd_loss")
    for p in (*network.parameters(), *kd_loss.parameters()):
        p.data *= 2
    path = str(tmp_path / "checkpoint_last.pt")
    torch.save({"network": network.state_dict(), "kd_loss": kd_loss.state_dict(), "epoch": 1}, path)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    plain, weights, both = (
        calibrate(open_bundle(str(BUNDLE), files, **where), checkpoint, batches=1, fit_steps=0)
        for checkpoint in (None, str(tmp_path / "model.pt"), path)
    )
    assert [r["projections"] for r in (plain, weights, both)] == ["initial", "initial", "from the checkpoint"]
    assert plain["encoder"]["seg"] != weights["encoder"]["seg"] == both["encoder"]["seg"]
    assert len({r["encoder"]["kd"] for r in (plain, weights, both)}) == 3


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_projections_are_fitted_to_other_batches_than_are_measured(where, monkeypatch):
    images, forward = [], FrozenTeacher.forward

    def watched(teacher, image):
        images.append(image)
        return forward(teacher, image)

    monkeypatch.setattr(FrozenTeacher, "forward", watched)
    calibrate(open_bundle(str(BUNDLE), [str(BUNDLE / "configs" / "train.json")], **where), batches=2, fit_steps=2)
    assert len(images) == 4 and not any(torch.equal(a, b) for a in images[:2] for b in images[2:])


def test_errors(where, tmp_path, capsys):
    command = [str(BUNDLE), "--output", str(tmp_path / "x.json"), *arguments(where)]
    for extra, message in (
        (["--methods", "cdw"], "unknown method – --methods – expected dcd, combined, cwd, .* found cdw"),
        (["--config_file", "trian.json"], "config file not found – trian.json"),
        (["--batches", "0"], "argument --batches: expected a whole number above 0, found '0'"),
        (["--checkpoint", str(tmp_path / "none.pt")], "weights not found – .*none.pt – .* pass --checkpoint"),
        (["--learning_rat", "1"], "unknown config key – .* 'learning_rate'"),
        (["stray"], "unknown argument"),
    ):
        assert dcd(["calibrate", *command, *extra]) == 1
        found = capsys.readouterr().err
        assert re.search(message, found), found
    student = BUNDLES / "hippocampus_segmentation_student"
    with pytest.raises(Exception) as error:
        calibrate(open_bundle(str(student), [str(student / "configs" / "train.json")]))
    assert "no distillation in the config" in str(user_error(error.value))
    assert not (tmp_path / "x.json").exists()
