from __future__ import annotations

import math

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.losses.cwd import CWDLoss
from tests.losses.contract import (
    assert_gradients,
    assert_parts_add_up,
    features,
    labels,
)

SIDES = (5, 3, 4)


def slow_maps(y, temperature):
    """Softmax over the voxels of every channel, with Python's floats: lists [sample][channel][voxel]."""
    maps = [[[math.exp(v / temperature) for v in channel] for channel in sample] for sample in y.flatten(2).tolist()]
    return [[[v / sum(channel) for v in channel] for channel in sample] for sample in maps]


def slow_cwd(student, teacher, temperature, divergence, channels):
    total = 0.0
    maps = zip(slow_maps(student, temperature), slow_maps(teacher, temperature), strict=True)
    for sample_s, sample_t in maps:
        for map_s, map_t in zip(sample_s, sample_t, strict=True):
            for q, p in zip(map_s, map_t, strict=True):
                total += p * (math.log(p) - math.log(q)) if divergence == "kl" else (q - p) ** 2
    return temperature**2 * total / (len(student) * channels)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("divergence", "channels"), [("kl", 4), ("mse_preset", 2)])
@pytest.mark.usefixtures("slabs")
def test_features_equal_slow_loop(temperature, divergence, channels):
    student, teacher = features(SIDES, 2), features(SIDES, 4, seed=1)
    loss = CWDLoss([2], [4], temperature=temperature, divergence=divergence).double()
    value = loss([student], [teacher])
    lifted = loss.projections[0](student).detach()
    assert value.item() == pytest.approx(slow_cwd(lifted, teacher, temperature, divergence, channels), rel=1e-12)
    assert_parts_add_up(loss, value, [divergence])


@pytest.mark.parametrize(("options", "temperature"), [({}, 4.0), ({"temperature": 1.0}, 1.0)])
def test_logits_equal_slow_loop(options, temperature):
    student, teacher = features(SIDES), features(SIDES, seed=1)
    loss = CWDLoss(on="logits", **options)
    value = loss([], [], [student, features((2, 2, 2))], teacher)
    assert value.item() == pytest.approx(slow_cwd(student, teacher, temperature, "kl", 3), rel=1e-12)
    assert_parts_add_up(loss, value, ["kl"])


def test_mean_over_stages():
    student, teacher = features(SIDES, 2), features(SIDES, 4, seed=1)
    one, two = CWDLoss([2], [4]).double(), CWDLoss([2, 2], [4, 4]).double()
    two.projections[0].load_state_dict(one.projections[0].state_dict())
    two.projections[1].load_state_dict(one.projections[0].state_dict())
    torch.testing.assert_close(two([student] * 2, [teacher] * 2), one([student], [teacher]))


@pytest.mark.parametrize("divergence", ["kl", "mse_preset"])
def test_equal_features_give_zero(divergence):
    x = features(SIDES, dtype=torch.float32)
    loss = CWDLoss([3], [3], divergence=divergence, projection="identity")
    assert loss([x], [x.clone()]).item() == 0
    # a map's level and nothing else may differ
    assert abs(loss([x + 5], [x]).item()) < 1e-5


def test_absent_classes_contribute_nothing():
    student, teacher = features(SIDES), features(SIDES, seed=1)
    label = labels(SIDES, classes=2)
    label[1] = 0
    loss = CWDLoss(on="logits", present_only=True)
    value = loss([], [], student, teacher, label)
    kept = [
        slow_cwd(student[b : b + 1, c : c + 1], teacher[b : b + 1, c : c + 1], 4, "kl", 1)
        for b, c in ((0, 0), (0, 1), (1, 0))
    ]
    assert value.item() == pytest.approx(sum(kept) / 3, rel=1e-12)
    changed = student.clone()
    changed[:, 2], changed[1, 1] = 7 * changed[:, 2], -changed[1, 1]
    torch.testing.assert_close(loss([], [], changed, teacher, label), value)


@pytest.mark.parametrize("divergence", ["kl", "mse_preset"])
@pytest.mark.usefixtures("slabs")
def test_gradients(divergence):
    student, teacher = features((2, 3, 2), 2).requires_grad_(), features((2, 3, 2), 4, seed=1)
    loss = CWDLoss([2], [4], divergence=divergence).double()

    def function(s, weight):
        return torch.func.functional_call(loss, {"projections.0.weight": weight}, ([s], [teacher]))

    assert torch.autograd.gradcheck(function, (student, loss.projections[0].weight))
    assert_gradients(loss, [student], [teacher])


@pytest.mark.parametrize("present_only", [False, True])
def test_gradients_on_logits(present_only):
    student, teacher = features((2, 3, 2)).requires_grad_(), features((2, 3, 2), seed=1)
    label = labels((2, 3, 2))
    loss = CWDLoss(on="logits", present_only=present_only)
    assert torch.autograd.gradcheck(lambda s: loss([], [], s, teacher, label), (student,))
    assert_gradients(loss, [student], [teacher], output=True, label=label)


def test_preset_is_as_weak_as_documented():
    """Of the order of 1 / voxels for features of unit variance, where the KL is about 1."""
    student, teacher = features((16,) * 3, 4, dtype=torch.float32), features((16,) * 3, 4, dtype=torch.float32, seed=1)
    preset = CWDLoss([4], [4], divergence="mse_preset", projection="identity")([student], [teacher]).item()
    kl = CWDLoss([4], [4], projection="identity")([student], [teacher]).item()
    assert 5e-4 < preset < 1.2e-3 and 0.8 < kl < 1.2


def test_projections_are_trained():
    assert not list(CWDLoss(on="logits").parameters())
    assert [tuple(p.shape) for p in CWDLoss([2], [4]).parameters()] == [(4, 2, 1, 1, 1)]


def test_errors():
    z = features(SIDES)
    with pytest.raises(UserError, match="unknown option – divergence"):
        CWDLoss([2], [4], divergence="mse")
    with pytest.raises(UserError, match="unknown option – on"):
        CWDLoss([2], [4], on="output")
    with pytest.raises(UserError, match="option out of range – temperature"):
        CWDLoss([2], [4], temperature=-1)
    with pytest.raises(UserError, match="features have no classes"):
        CWDLoss([2], [4], present_only=True)
    with pytest.raises(ValueError, match="student and teacher need the same stages, got 0 and 0"):
        CWDLoss()
    with pytest.raises(ValueError, match="this loss needs the teacher's logits, got None"):
        CWDLoss(on="logits")([], [], z)
    with pytest.raises(ValueError, match="this loss needs the batch's label"):
        CWDLoss(on="logits", present_only=True)([], [], z, z)
    with pytest.raises(ValueError, match="student feature of stage 0 must have shape"):
        CWDLoss([2], [4])([z], [z])
