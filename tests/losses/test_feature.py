from __future__ import annotations

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.losses.feature import FitNetLoss
from tests.losses.contract import (
    assert_gradients,
    assert_parts_add_up,
    features,
)

GRIDS = [(5, 3, 4), (3, 2, 2)]
STUDENT, TEACHER = [2, 3], [4, 5]


def stages(dtype=torch.float64):
    student = [features(g, c, dtype=dtype) for g, c in zip(GRIDS, STUDENT, strict=True)]
    teacher = [features(g, c, dtype=dtype, seed=1) for g, c in zip(GRIDS, TEACHER, strict=True)]
    return student, teacher


def slow_mse(student, teacher, weight, bias=None):
    total = 0.0
    for b in range(len(student)):
        for f, t in zip(student[b].flatten(1).T, teacher[b].flatten(1).T, strict=True):
            for c in range(len(t)):
                lifted = sum(weight[c, k, 0, 0, 0] * f[k] for k in range(len(f)))
                total += (lifted + (0 if bias is None else bias[c]) - t[c]) ** 2
    return total / teacher.numel()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.usefixtures("slabs")
def test_equals_slow_loop(bias):
    student, teacher = stages()
    loss = FitNetLoss(STUDENT, TEACHER, bias=bias).double()
    value = loss(student, teacher)
    expected = [slow_mse(s, t, p.weight, p.bias) for s, t, p in zip(student, teacher, loss.projections, strict=True)]
    torch.testing.assert_close(value, sum(expected) / 2)
    torch.testing.assert_close(loss.stage_losses[1], expected[1].detach() / 2)
    assert_parts_add_up(loss, value, ["mse"])


def test_stage_weights():
    student, teacher = stages()
    mean, weighted = FitNetLoss(STUDENT, TEACHER).double(), FitNetLoss(STUDENT, TEACHER, [3, 0]).double()
    mean(student, teacher)
    torch.testing.assert_close(weighted(student, teacher).detach(), 6 * mean.stage_losses[0])


def test_equal_features_give_zero():
    x = features((5, 3, 4), dtype=torch.float32)
    assert FitNetLoss([3], [3], projection="identity")([x], [x.clone()]).item() == 0


@pytest.mark.usefixtures("slabs")
def test_gradients():
    student, teacher = features((2, 3, 2), 2).requires_grad_(), features((2, 3, 2), 4, seed=1)
    loss = FitNetLoss([2], [4]).double()

    def function(s, weight):
        return torch.func.functional_call(loss, {"projections.0.weight": weight}, ([s], [teacher]))

    assert torch.autograd.gradcheck(function, (student, loss.projections[0].weight))
    assert_gradients(loss, [student], [teacher])


def test_frozen_projections():
    student, teacher = stages(torch.float32)
    loss = FitNetLoss(STUDENT, TEACHER, train_projections=False)
    student[0].requires_grad_()
    loss(student, teacher).backward()
    assert student[0].grad is not None
    assert not any(p.requires_grad for p in loss.parameters())


def test_channels_last_features_give_the_same():
    student, teacher = stages(torch.float32)
    loss = FitNetLoss(STUDENT, TEACHER)
    value = loss(student, teacher)
    strided = [[x.to(memory_format=torch.channels_last_3d) for x in xs] for xs in (student, teacher)]
    torch.testing.assert_close(loss(*strided), value)


def test_without_gradients():
    student, teacher = stages(torch.float32)
    loss = FitNetLoss(STUDENT, TEACHER)
    with torch.inference_mode():
        inferred = loss(student, teacher)
    torch.testing.assert_close(loss(student, teacher).detach(), inferred)


def test_projections_are_trained():
    assert [tuple(p.shape) for p in FitNetLoss(STUDENT, TEACHER).parameters()] == [(4, 2, 1, 1, 1), (5, 3, 1, 1, 1)]


def test_normalised_by_the_teachers_mean_square():
    student, teacher = stages()
    plain, normalised = (
        FitNetLoss(STUDENT, TEACHER).double(),
        FitNetLoss(STUDENT, TEACHER, normalize="teacher").double(),
    )
    plain(student, teacher), normalised(student, teacher)
    for a, b, t in zip(plain.stage_losses, normalised.stage_losses, teacher, strict=True):
        assert b.item() == pytest.approx(a.item() / (sum(v**2 for v in t.flatten().tolist()) / t.numel()))


def test_errors():
    with pytest.raises(ValueError, match="stage_weights needs 2 numbers, one per stage, got 1"):
        FitNetLoss(STUDENT, TEACHER, [1.0])
    with pytest.raises(UserError, match="option out of range – every stage weight – expected a finite number >= 0"):
        FitNetLoss(STUDENT, TEACHER, [1.0, -1.0])
