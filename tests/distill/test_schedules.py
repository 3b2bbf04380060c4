"""Shapes of the schedules against the authors' formulas (epochs, not fractions) written out here."""

import math
import re

import pytest

from dcd_ext.distill.schedules import ConstantWeight, CosineHealingWeight, CosineWeight, WarmupWeight
from dcd_ext.errors import UserError

EPOCHS = 1000


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0.0), (149, 0.0), (150, 0.0), (550, 0.005), (950, 0.01), (999, 0.01)]
)
def test_cosine_healing_is_the_authors_brats_schedule(epoch, expected):
    schedule = CosineHealingWeight(0.01, start=0.15, ramp=0.8)
    assert schedule(epoch, EPOCHS) == pytest.approx(expected, abs=1e-12)


def test_cosine_healing_without_ramp_rises_to_the_end():
    schedule = CosineHealingWeight(2.0, start=0.5)
    assert [schedule(e, 8) for e in (3, 4, 6, 8)] == pytest.approx([0, 0, 1, 2])


def test_warmup_rises_linearly_then_stays():
    schedule = WarmupWeight(1.0, start=0.1, ramp=0.2)
    assert [schedule(e, EPOCHS) for e in (0, 99, 100, 200, 300, 999)] == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert WarmupWeight(3.0)(0, EPOCHS) == 3.0


@pytest.mark.parametrize("epoch", range(0, EPOCHS, 37))
def test_cosine_rises_linearly_then_falls_by_half_a_cosine(epoch):
    start, ramp = 100, 200
    if epoch < start:
        expected = 0.0
    elif epoch < start + ramp:
        expected = (epoch - start) / ramp
    else:
        expected = 0.5 * (1 + math.cos(math.pi * (epoch - start - ramp) / (EPOCHS - start - ramp)))
    assert CosineWeight(1.0, start=0.1, ramp=0.2)(epoch, EPOCHS) == pytest.approx(expected, abs=1e-12)


def test_constant_and_zero():
    assert ConstantWeight(0.5)(0, 3) == ConstantWeight(0.5)(2, 3) == 0.5
    assert ConstantWeight(0.0)(1, 3) == 0.0
    assert ConstantWeight(0.5, start=0.5)(0, 4) == 0.0


def test_epochs_instead_of_fractions_are_refused():
    with pytest.raises(UserError, match=re.escape("schedule out of range – start – expected a fraction of the run")):
        CosineHealingWeight(0.01, start=150, ramp=0.8)
    with pytest.raises(UserError, match=r"negative distillation weight – kd_weight – expected >= 0, found -1"):
        ConstantWeight(-1)
