from __future__ import annotations

import math

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.losses.logits import LogitsLoss
from tests.losses.contract import (
    assert_gradients,
    assert_parts_add_up,
    features,
)

SIDES = (5, 3, 4)


def slow_kl(student, teacher, temperature):
    """KL of the softened distributions, one voxel at a time, with Python's floats."""
    total, voxels = 0.0, 0
    for b in range(len(student)):
        for zs, zt in zip(student[b].flatten(1).T.tolist(), teacher[b].flatten(1).T.tolist(), strict=True):
            q, p = ([math.exp(z / temperature) for z in zz] for zz in (zs, zt))
            q, p = [x / sum(q) for x in q], [x / sum(p) for x in p]
            total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
            voxels += 1
    return temperature**2 * total / voxels


def slow_bernoulli_kl(student, teacher, temperature):
    total = 0.0
    for zs, zt in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        q, p = (1 / (1 + math.exp(-z / temperature)) for z in (zs, zt))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return temperature**2 * total / (student.numel() / student.shape[1])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(("sigmoid", "slow"), [(False, slow_kl), (True, slow_bernoulli_kl)])
def test_equals_slow_loop(temperature, sigmoid, slow):
    student, teacher = features(SIDES), features(SIDES, seed=1)
    loss = LogitsLoss(temperature, sigmoid=sigmoid)
    value = loss([], [], student, teacher)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(slow(student, teacher, temperature), rel=1e-12)
    assert_parts_add_up(loss, value, ["kl"])


def test_only_the_finest_output_counts():
    student, teacher = features(SIDES), features(SIDES, seed=1)
    coarse = features((3, 2, 2))
    loss = LogitsLoss()
    alone = loss([], [], student, teacher)
    assert torch.equal(loss([], [], [student, coarse], teacher), alone)
    # MONAI's DynUNet stacks its outputs in training and gives one in evaluation
    assert torch.equal(loss([], [], torch.stack([student, teacher], 1), teacher), alone)


def test_deep_supervision_weighs_outputs_as_the_segmentation_loss_does():
    grids = [(8, 6, 4), (4, 3, 2), (2, 2, 1)]
    student, teacher = [features(g) for g in grids], [features(g, seed=1) for g in grids]
    loss = LogitsLoss(deep_supervision=True)
    value = loss([], [], student, teacher)
    first, second = (LogitsLoss()([], [], s, t) for s, t in zip(student[:2], teacher[:2], strict=True))
    torch.testing.assert_close(value, (first + 0.5 * second) / 1.5)
    assert len(loss.stage_losses) == 2
    assert_parts_add_up(loss, value, ["kl"])


@pytest.mark.parametrize("sigmoid", [False, True])
def test_equal_outputs_give_zero(sigmoid):
    z = features(SIDES, dtype=torch.float32)
    assert LogitsLoss(sigmoid=sigmoid)([], [], z, z.clone()).item() == 0


@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradients(sigmoid):
    student, teacher = features((2, 3, 2)).requires_grad_(), features((2, 3, 2), seed=1)
    loss = LogitsLoss(3.0, sigmoid=sigmoid)
    assert torch.autograd.gradcheck(lambda s: loss([], [], s, teacher), (student,))
    assert_gradients(loss, [student], [teacher], output=True)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_extreme_outputs_stay_finite(sigmoid):
    student = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1, 1).requires_grad_()
    value = LogitsLoss(1.0, sigmoid=sigmoid)([], [], student, -student.detach())
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_an_absent_class_changes_nothing():
    """A class that both networks give no probability."""
    student, teacher = features(SIDES), features(SIDES, seed=1)
    absent = torch.full_like(student[:, :1], -1e4)
    with_class = [torch.cat((x, absent), 1) for x in (student, teacher)]
    torch.testing.assert_close(LogitsLoss()([], [], *with_class), LogitsLoss()([], [], student, teacher))


def test_nothing_is_trained():
    assert not list(LogitsLoss().parameters())


def test_errors():
    z = features(SIDES)
    with pytest.raises(UserError, match="option out of range – temperature"):
        LogitsLoss(0)
    with pytest.raises(UserError, match=r"option out of range – temperature – expected a finite number > 0, found '2'"):
        LogitsLoss("2")
    with pytest.raises(ValueError, match="needs the teacher's logits, got None"):
        LogitsLoss()([], [], z)
    with pytest.raises(ValueError, match=r"needs the student's logits, got \[\]"):
        LogitsLoss()([], [], [], z)
    with pytest.raises(ValueError, match="student and teacher logits 0 must have one shape"):
        LogitsLoss()([], [], z, z[:, :2])
    with pytest.raises(ValueError, match="student and teacher logits 0 must have one shape"):
        LogitsLoss()([], [], z[0], z[0])
    with pytest.raises(
        ValueError, match="2 deep supervision outputs are distilled, got 2 of the student and 1 of the teacher"
    ):
        LogitsLoss(deep_supervision=True)([], [], [z, z], z)
