"""Weight of the distillation term over a run.

``start`` and ``ramp`` are fractions of the run, so that one setting serves 1000 epochs and 40. The shapes are those of
the DCD authors' release, which counts epochs from 0.
"""

import math

from dcd_ext.errors import UserError


class WeightSchedule:
    """Distillation weight as a function of the epoch; values outside of their ranges are refused.

    Args:
        weight: the largest weight, >= 0.
        start: fraction of the run before which the weight is 0, in [0, 1].
        ramp: fraction of the run over which the weight changes, in [0, 1].
    """

    def __init__(self, weight: float, start: float = 0.0, ramp: float = 0.0) -> None:
        if weight < 0:
            raise UserError("negative distillation weight", "kd_weight", ">= 0", weight, "use 0 to switch it off")
        for name, value in (("start", start), ("ramp", ramp)):
            if not 0 <= value <= 1:
                expected = "a fraction of the run in [0, 1]"
                raise UserError("schedule out of range", name, expected, value, "divide by max_epochs")
        self.weight, self.start, self.ramp = weight, start, ramp

    def __call__(self, epoch: int, max_epochs: int) -> float:
        """Weight for ``epoch`` (from 0) of ``max_epochs``."""
        position = epoch / max_epochs
        if self.weight == 0 or position < self.start:
            return 0.0
        return self.weight * self._shape(position - self.start)

    def _shape(self, since_start: float) -> float:
        """Fraction of the full weight, ``since_start`` being a fraction of the run."""
        return 1.0


class ConstantWeight(WeightSchedule):
    """``weight`` from ``start`` to the end."""


class WarmupWeight(WeightSchedule):
    """Linear rise over ``ramp``, then ``weight``."""

    def _shape(self, since_start: float) -> float:
        return min(since_start / self.ramp, 1.0) if self.ramp else 1.0


class CosineWeight(WarmupWeight):
    """Linear rise over ``ramp``, then a half cosine down to 0 at the end of the run."""

    def _shape(self, since_start: float) -> float:
        if since_start < self.ramp:
            return super()._shape(since_start)
        rest = 1.0 - self.start - self.ramp
        return 0.5 * (1 + math.cos(math.pi * (since_start - self.ramp) / rest)) if rest > 0 else 1.0


class CosineHealingWeight(WeightSchedule):
    """Half cosine rising from 0 to ``weight`` over ``ramp`` (the rest of the run if 0), then ``weight``."""

    def _shape(self, since_start: float) -> float:
        ramp = self.ramp or 1.0 - self.start
        return 0.5 * (1 - math.cos(math.pi * min(since_start / ramp, 1.0))) if ramp > 0 else 1.0
