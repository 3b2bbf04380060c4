"""Weighted sum of several distillation losses."""

from collections.abc import Mapping

from torch import nn

from dcd_ext.losses._options import check_number
from dcd_ext.losses.base import DistillationLoss, LossInputs, Terms


class CombinedLoss(DistillationLoss):
    """``sum over names n of weights[n] · losses[n]``.

    All losses over features get the same stages. ``components`` are named ``<name>_<term>``, and ``stage_losses`` are
    those of the losses one after the other; both are weighted.

    Args:
        losses: the losses by name.
        weights: weight per name, from 0.

    Raises:
        UserError: for unusable weights.
        ValueError: if there is no loss or names differ, and what the losses raise when called.
    """

    def __init__(self, losses: Mapping[str, DistillationLoss], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not losses or set(losses) != set(weights):
            raise ValueError(f"losses and weights need the same names, got {list(losses)} and {list(weights)}")
        for name, weight in weights.items():
            check_number(f"weights[{name!r}]", weight, inclusive=True)
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: float(weights[name]) for name in losses}
        self.needs_features = any(loss.needs_features for loss in losses.values())
        self.needs_teacher_output = any(loss.needs_teacher_output for loss in losses.values())
        self.needs_label = any(loss.needs_label for loss in losses.values())

    def terms(self, inputs: LossInputs) -> list[Terms]:
        return [
            {f"{name}_{term}": self.weights[name] * value for term, value in stage.items()}
            for name, loss in self.losses.items()
            for stage in loss.terms(inputs)  # type: ignore[operator]
        ]
