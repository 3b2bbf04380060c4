from __future__ import annotations

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.losses import CombinedLoss, CWDLoss, DCDLoss, IFVDLoss, LogitsLoss
from tests.losses.contract import assert_leaves_random_state, assert_parts_add_up, features, labels

SIDES = (8, 6, 7)


def make():
    parts = {"dcd": DCDLoss([2, 2], [4, 4], normalize="teacher").double(), "logits": LogitsLoss()}
    return CombinedLoss(parts, {"logits": 0.5, "dcd": 0.25})


def batch():
    student, teacher = [features(SIDES, 2), features((4, 3, 4), 2)], [features(SIDES, 4), features((4, 3, 4), 4)]
    return student, teacher, features(SIDES, seed=2), features(SIDES, seed=3), labels(SIDES)


def test_equals_the_weighted_sum():
    loss, inputs = make(), batch()
    dcd, logits = loss.losses["dcd"], loss.losses["logits"]
    leaves = [*inputs[0], inputs[2]]
    for leaf in leaves:
        leaf.requires_grad_()
    value = loss(*inputs)
    gradients = torch.autograd.grad(value, [*leaves, *loss.parameters()])
    expected = 0.25 * dcd(*inputs) + 0.5 * logits(*inputs)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, [*leaves, *dcd.parameters()]))
    assert_parts_add_up(loss, value, ["dcd_detail", "logits_kl"])
    torch.testing.assert_close(loss.components["logits_kl"], 0.5 * logits.components["kl"])
    torch.testing.assert_close(loss.stage_losses[:2], tuple(0.25 * x for x in dcd.stage_losses))
    torch.testing.assert_close(loss.stage_losses[2:], (0.5 * logits.stage_losses[0],))


def test_needs_are_the_union():
    loss = make()
    assert (loss.needs_features, loss.needs_teacher_output, loss.needs_label) == (True, True, False)
    outputs = CombinedLoss({"cwd": CWDLoss(on="logits"), "logits": LogitsLoss()}, {"cwd": 1, "logits": 1})
    assert (outputs.needs_features, outputs.needs_teacher_output, outputs.needs_label) == (False, True, False)
    assert CombinedLoss({"ifvd": IFVDLoss([2], [4], 3)}, {"ifvd": 1}).needs_label


def test_projections_are_trained_and_saved():
    loss = make()
    assert set(loss.state_dict()) == {f"losses.dcd.projections.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")}
    assert_leaves_random_state(make)


def test_errors():
    for losses, weights in (({}, {}), ({"a": LogitsLoss()}, {"b": 1}), ({"a": LogitsLoss()}, {"a": 1, "b": 1})):
        with pytest.raises(ValueError, match="losses and weights need the same names"):
            CombinedLoss(losses, weights)
    with pytest.raises(UserError, match=r"option out of range – weights\['a'\] – .* found -1"):
        CombinedLoss({"a": LogitsLoss()}, {"a": -1})
    student, teacher, _, _, _ = batch()
    with pytest.raises(ValueError, match="needs the student's logits"):
        make()(student, teacher)
