"""Every option of docs/ablations.md reaches what it is about."""

import re
import shlex

import pytest
import torch

from dcd_ext.bundles.tools import read_options
from dcd_ext.distill.schedules import ConstantWeight, CosineWeight
from tests.conftest import BUNDLES, ROOT, SMALL, make_workflow

NAME = "hippocampus_segmentation_student_dcd"
DIRECTIONAL = {"aad", "ada", "daa", "add", "dad", "dda"}


def keys(*expected):
    return lambda parser: set(loss(parser).keys) == set(expected)


def attribute(name, value):
    return lambda parser: getattr(loss(parser), name) == value


def loss(parser):
    return parser.get_parsed_content("kd_loss")


def are_two_stages(parser):
    taps = parser.get_parsed_content("taps")
    return taps == ["encoder.stages.0", "encoder.stages.1"] and len(loss(parser).projections) == 2


def is_frozen(parser):
    groups = parser.get_parsed_content("train::optimizer").param_groups
    return not any(p.requires_grad for p in loss(parser).parameters()) and groups[1]["params"] == []


def shares(kind, at_start, at_end):
    """A schedule of this kind, with these shares of the weight in the first and the last epoch."""

    def check(parser):
        schedule, weight = (parser.get_parsed_content(name) for name in ("kd_schedule", "kd_weight"))
        found = [schedule(epoch, 10) for epoch in (0, 10)]
        return isinstance(schedule, kind) and found == pytest.approx([at_start * weight, at_end * weight])

    return check


def is_without_ema(parser):
    validated = parser.get_parsed_content("validate::evaluator::network")
    state = parser.get_parsed_content("train::resume_state")
    return validated is parser.get_parsed_content("network") and state["ema"] is None


def has_slower_average(parser):
    return parser.get_parsed_content("train::ema").momentum == pytest.approx(1e-4)


# option -> (what has to hold, and whether the loss of the same features changes)
ABLATIONS = {
    "--kd_loss_def::bands directional": (keys(*DIRECTIONAL), False),
    "--kd_loss_def::bands approximation": (keys("aaa"), True),
    "--kd_loss_def::bands diagonal": (keys("ddd"), True),
    "--kd_loss_def::bands all": (keys("aaa", "ddd", *DIRECTIONAL), True),
    "--kd_loss_def::bands \"['aad','daa']\"": (keys("aad", "daa"), True),
    "--kd_loss_def::reconstruct False": (attribute("reconstruct", False), True),
    "--kd_loss_def::level_reduction per_level": (attribute("level_reduction", "per_level"), True),
    "--kd_loss_def::level_reduction joint": (attribute("level_reduction", "joint"), False),
    "--kd_loss_def::levels 1": (attribute("levels", 1), True),
    "--kd_loss_def::cap_levels False": (attribute("cap_levels", False), True),
    "--kd_loss_def::wavelet haar": (attribute("wavelet", "haar"), True),
    "--kd_loss_def::mode symmetric": (attribute("mode", "symmetric"), True),
    "--kd_loss_def::engine reference": (attribute("engine", "reference"), False),
    "--kd_loss_def::normalize teacher": (attribute("normalize", "teacher"), True),
    '--kd_stages "[0,1]"': (are_two_stages, True),
    "--kd_loss_def::train_projections False": (is_frozen, False),
    "--kd_weight 0.1": (lambda parser: parser.get_parsed_content("kd_schedule").weight == 0.1, False),
    "--kd_schedule::_target_ dcd_ext.distill.schedules.ConstantWeight --kd_schedule::start 0": (
        shares(ConstantWeight, 1, 1),
        False,
    ),
    "--kd_schedule::_target_ dcd_ext.distill.schedules.CosineWeight": (shares(CosineWeight, 0, 0), False),
    "--kd_weight 0": (lambda parser: parser.get_parsed_content("kd_schedule")(10, 10) == 0, False),
    "--reduction_factor 2": (attribute("student_channels", (16, 16, 16, 16)), True),
    "--ema_decay 0": (is_without_ema, False),
    "--ema_decay 0.9999": (has_slower_average, False),
}


def open_with(option):
    settings = {**SMALL["hippocampus"], "features": [32] * 4}
    return make_workflow(NAME, "train", **settings, **read_options(shlex.split(option))).parser


def loss_of_fixed_features(parser):
    """The loss of noise on four grids; large enough for two levels of db4."""
    generator = torch.Generator().manual_seed(0)
    kd_loss = loss(parser)
    pairs = zip(kd_loss.student_channels, kd_loss.teacher_channels, strict=True)
    features = [[torch.randn(1, c, *[32 >> i] * 3, generator=generator) for c in p] for i, p in enumerate(pairs)]
    student, teacher = zip(*features, strict=True)
    return kd_loss(list(student), list(teacher)).item()


def test_the_page_has_these_options_and_no_others():
    page = (ROOT / "docs" / "ablations.md").read_text("utf-8")
    assert set(re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", page, re.MULTILINE)) == set(ABLATIONS)
    assert (BUNDLES / NAME).is_dir()


@pytest.fixture(scope="module")
def default():
    return loss_of_fixed_features(open_with(""))


@pytest.mark.parametrize("option", ABLATIONS)
def test_option_reaches_the_objects(option, default):
    check, changes_loss = ABLATIONS[option]
    parser = open_with(option)
    assert check(parser)
    assert (loss_of_fixed_features(parser) != pytest.approx(default, rel=1e-6)) == changes_loss


@pytest.mark.parametrize("option", ["--ema_decay 0", "--ema_decay 0.9999", "--kd_loss_def::train_projections False"])
def test_the_check_fails_without_the_option(option):
    assert not ABLATIONS[option][0](open_with(""))


@pytest.mark.parametrize("method", ["feature", "cwd_feat", "cwd_mse_preset", "ifvd", "freekd_noprompt", "recokd"])
def test_stages_of_every_feature_method(method):
    settings = {**SMALL["hippocampus"], "features": [16, 32, 64, 128], "kd_stages": [1, 2]}
    parser = make_workflow(NAME, "train", f"methods/{method}", **settings).parser
    assert parser.get_parsed_content("taps") == ["encoder.stages.1", "encoder.stages.2"]
    assert (loss(parser).student_channels, loss(parser).teacher_channels) == ((8, 16), (32, 64))
