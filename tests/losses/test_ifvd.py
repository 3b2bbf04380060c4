from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dcd_ext.errors import UserError
from dcd_ext.losses.ifvd import IFVDLoss
from tests.losses.contract import (
    assert_gradients,
    assert_parts_add_up,
    features,
    labels,
)

SIDES = (5, 3, 4)


def slow_similarity(x, y):
    """Cosine of every voxel and its class's mean, voxel by voxel; None where the label is negative."""
    maps = []
    for b in range(len(x)):
        f, classes = x[b].flatten(1).T, y[b].flatten().tolist()
        row = []
        for v, k in enumerate(classes):
            if k < 0:
                row.append(None)
                continue
            members = [f[u] for u, other in enumerate(classes) if other == k]
            mean = torch.stack(members).sum(0) / (len(members) + 1e-6)
            row.append((f[v] @ mean) / (f[v].norm() * mean.norm()))
        maps.append(row)
    return maps


def slow_ifvd(student, teacher, y):
    total, count = 0.0, 0
    for row_s, row_t in zip(slow_similarity(student, y), slow_similarity(teacher, y), strict=True):
        for m_s, m_t in zip(row_s, row_t, strict=True):
            total += 0 if m_s is None else (m_s - m_t) ** 2
            count += 1
    return total / count


def test_equals_slow_loop():
    student, teacher, label = features(SIDES, 2), features(SIDES, 4, seed=1), labels(SIDES, 3)
    loss = IFVDLoss([2], [4], num_classes=3)
    value = loss([student], [teacher], label=label)
    torch.testing.assert_close(value, slow_ifvd(student, teacher, label))
    assert_parts_add_up(loss, value, ["intra_class"])


def test_label_is_resized_to_every_stage():
    grids = [(6, 5, 7), (3, 3, 4)]
    student = [features(g, 2) for g in grids]
    teacher = [features(g, 4, seed=1) for g in grids]
    label = labels(grids[0], 3)
    small = F.interpolate(label.double(), grids[1], mode="nearest").long()
    value = IFVDLoss([2, 2], [4, 4], num_classes=3)(student, teacher, label=label.float())
    expected = [slow_ifvd(s, t, y) for s, t, y in zip(student, teacher, (label, small), strict=True)]
    torch.testing.assert_close(value, sum(expected) / 2)


def test_balanced_classes():
    student, teacher = features(SIDES, 2), features(SIDES, 4, seed=1)
    label = (labels(SIDES, 10) == 0).long()
    label[1] = 0
    loss = IFVDLoss([2], [4], num_classes=3, balance_classes=True)
    m_s, m_t = slow_similarity(student, label), slow_similarity(teacher, label)
    means = []
    for b, k in ((0, 0), (0, 1), (1, 0)):
        chosen = [v for v, y in enumerate(label[b].flatten().tolist()) if y == k]
        means.append(sum((m_s[b][v] - m_t[b][v]) ** 2 for v in chosen) / len(chosen))
    torch.testing.assert_close(loss([student], [teacher], label=label), sum(means) / 3)


@pytest.mark.parametrize("balance", [False, True])
def test_absent_and_ignored_classes_contribute_nothing(balance):
    student, teacher, label = features(SIDES, 2), features(SIDES, 4, seed=1), labels(SIDES, 3)
    value = IFVDLoss([2], [4], 3, None, balance)([student], [teacher], label=label)
    torch.testing.assert_close(IFVDLoss([2], [4], 9, None, balance)([student], [teacher], label=label), value)
    ignored = label.clone()
    ignored[0, 0, 0] = 255
    loss = IFVDLoss([2], [4], 3, 255, balance)
    value = loss([student], [teacher], label=ignored)
    if not balance:
        negative = ignored.masked_fill(ignored == 255, -1)
        torch.testing.assert_close(value, slow_ifvd(student, teacher, negative))
        torch.testing.assert_close(loss([student], [teacher], label=negative), value)
    changed = student.clone()
    changed[0, :, 0] *= -3
    torch.testing.assert_close(loss([changed], [teacher], label=ignored), value)


def test_equal_features_give_zero():
    x, label = features(SIDES, dtype=torch.float32), labels(SIDES)
    loss = IFVDLoss([3], [3], num_classes=3)
    assert loss([x], [x.clone()], label=label).item() == 0
    # lengths do not matter, nor do widths
    assert loss([x * 5], [x], label=label).item() < 1e-12
    assert IFVDLoss([6], [3], 3)([torch.cat((x, x), 1)], [x], label=label).item() < 1e-12


def test_a_class_of_one_voxel_gives_zero():
    student, teacher = features((1, 1, 2), 2), features((1, 1, 2), 4, seed=1)
    label = torch.tensor([0, 1]).view(1, 1, 1, 1, 2).expand(2, -1, -1, -1, -1)
    assert IFVDLoss([2], [4], 2)([student], [teacher], label=label).item() < 1e-20


@pytest.mark.parametrize("balance", [False, True])
def test_gradients(balance):
    student, teacher = features((2, 3, 2), 2).requires_grad_(), features((2, 3, 2), 4, seed=1)
    label = labels((2, 3, 2), 2)
    loss = IFVDLoss([2], [4], 2, balance_classes=balance)
    assert torch.autograd.gradcheck(lambda s: loss([s], [teacher], label=label), (student,))
    assert_gradients(loss, [student], [teacher], label=label)


def test_zero_features_stay_finite():
    student = torch.zeros(1, 2, 3, 3, 3, requires_grad=True)
    value = IFVDLoss([2], [4], 2)([student], [torch.zeros(1, 4, 3, 3, 3)], label=torch.zeros(1, 1, 3, 3, 3))
    value.backward()
    assert value.item() == 0 and student.grad.isfinite().all()


def test_nothing_is_trained():
    assert not list(IFVDLoss([2], [4], 2).parameters())


def test_errors():
    student, teacher, label = [features(SIDES, 2)], [features(SIDES, 4)], labels(SIDES, 3)
    with pytest.raises(UserError, match="option out of range – num_classes – expected a whole number from 2, found 1"):
        IFVDLoss([2], [4], 1)
    loss = IFVDLoss([2], [4], 3)
    with pytest.raises(ValueError, match="this loss needs the batch's label"):
        loss(student, teacher)
    with pytest.raises(ValueError, match=r"label must have shape \(2, 1, X, Y, Z\), got \(1, 1,"):
        loss(student, teacher, label=label[:1])
    with pytest.raises(ValueError, match="label must have shape"):
        loss(student, teacher, label=label[:, 0])
    with pytest.raises(ValueError, match="label must have shape"):
        loss(student, teacher, label=label.expand(-1, 2, -1, -1, -1))
    with pytest.raises(UserError, match=r"label is not a class number .* from 0 to 2, found 5"):
        loss(student, teacher, label=label.masked_fill(label == 2, 5))
    with pytest.raises(UserError, match=r"label is not a class number .* found 0.5"):
        loss(student, teacher, label=label * 0.5)
    with pytest.raises(ValueError, match="is coarser than the features"):
        loss(student, teacher, label=label[:, :, 1:])
    with pytest.raises(ValueError, match="the loss was made for 1 stages, got 0 student features"):
        loss([], [], label=label)
