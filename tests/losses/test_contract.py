"""What every loss has to keep, whatever it computes."""

from __future__ import annotations

import pytest
import torch

from dcd_ext.distill import PromptTuner
from dcd_ext.losses import CWDLoss, DCDLoss, FitNetLoss, FreeKDLoss, IFVDLoss, LogitsLoss, ReCoKDLoss
from tests.losses.contract import assert_leaves_random_state, assert_survives_background_in_bf16, features, labels

WIDTHS = ([4, 8], [8, 16])
GRIDS = ((16,) * 3, (8,) * 3)
FEATURES, LOGITS, LABELLED = (True, False, False), (False, True, False), (True, False, True)
# name -> (how to make it, given a file of prompts; needs_features, needs_teacher_output, needs_label)
LOSSES = {
    "logits": (lambda _: LogitsLoss(), LOGITS),
    "logits, sigmoid": (lambda _: LogitsLoss(sigmoid=True), LOGITS),
    "feature": (lambda _: FitNetLoss(*WIDTHS), FEATURES),
    "cwd": (lambda _: CWDLoss(on="logits"), LOGITS),
    "cwd, present_only": (lambda _: CWDLoss(on="logits", present_only=True), (False, True, True)),
    "cwd, mse_preset": (lambda _: CWDLoss(on="logits", divergence="mse_preset"), LOGITS),
    "cwd_feat": (lambda _: CWDLoss(*WIDTHS), FEATURES),
    "cwd_mse_preset": (lambda _: CWDLoss(*WIDTHS, divergence="mse_preset"), FEATURES),
    "ifvd": (lambda _: IFVDLoss(*WIDTHS, 3), LABELLED),
    "ifvd, balance_classes": (lambda _: IFVDLoss(*WIDTHS, 3, balance_classes=True), LABELLED),
    "freekd": (lambda prompts: FreeKDLoss(*WIDTHS, prompts), FEATURES),
    "freekd_noprompt": (lambda _: FreeKDLoss(*WIDTHS, "none"), FEATURES),
    "recokd": (lambda _: ReCoKDLoss(*WIDTHS, 3), LABELLED),
    "dcd": (lambda _: DCDLoss(*WIDTHS), FEATURES),
    "dcd, symmetric": (lambda _: DCDLoss(*WIDTHS, mode="symmetric"), FEATURES),
    "dcd, per_level": (lambda _: DCDLoss(*WIDTHS, level_reduction="per_level"), FEATURES),
    "dcd, coefficients": (lambda _: DCDLoss(*WIDTHS, reconstruct=False), FEATURES),
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("prompts") / "prompts.pt")
    tuner = PromptTuner(torch.nn.Identity(), [""] * 2, WIDTHS[1])
    for i, prompt in enumerate(tuner.prompts):
        # masks far from uniform
        prompt.data = torch.randn(prompt.shape, generator=torch.Generator().manual_seed(i))
    tuner.save(path)
    return path


@pytest.fixture(params=LOSSES)
def make(request, prompts):
    return lambda: LOSSES[request.param][0](prompts)


def test_background_patch_in_bf16(make):
    assert_survives_background_in_bf16(make())


def test_making_it_leaves_the_random_state_alone(make):
    assert_leaves_random_state(make)


@pytest.mark.parametrize("name", LOSSES)
def test_needs(name, prompts):
    make, needs = LOSSES[name]
    loss = make(prompts)
    assert (loss.needs_features, loss.needs_teacher_output, loss.needs_label) == needs


def batch(classes):
    """Features, outputs and a label with only the first ``classes`` of three classes."""
    student, teacher = ([features(g, c, seed=s) for g, c in zip(GRIDS, w, strict=True)] for s, w in enumerate(WIDTHS))
    return student, teacher, features(GRIDS[0], 3, seed=2), features(GRIDS[0], 3, seed=3), labels(GRIDS[0], classes)


def test_an_absent_class_leaves_value_and_gradients_finite(make):
    loss, (student, teacher, output, teacher_output, label) = make().double(), batch(classes=2)
    leaves = [x.requires_grad_() for x in ([output] if loss.needs_teacher_output else student)]
    value = loss(student, teacher, output, teacher_output, label)
    value.backward()
    assert value.isfinite() and value > 0
    assert all(x.grad.isfinite().all() and x.grad.any() for x in leaves)


def test_what_it_does_not_need_it_does_not_look_at(make):
    loss, (student, teacher, output, teacher_output, label) = make().double(), batch(classes=3)
    value = loss(student, teacher, output, teacher_output, label)
    kept = (
        *((student, teacher) if loss.needs_features else ([], [])),
        *((output, teacher_output) if loss.needs_teacher_output else (None, None)),
        label if loss.needs_label else None,
    )
    assert torch.equal(loss(*kept), value)
