"""Several folds of one nnU-Net as one network."""

from collections.abc import Sequence
from pydoc import locate
from typing import Any

import torch
from torch import nn


class Ensemble(nn.Module):
    """Networks of one architecture; the output stands for the mean of their probabilities.

    Applied to it, softmax (or sigmoid) gives that mean. ``WindowInferer`` averages the members' logits instead, as
    nnU-Net does. The members are ``members.0``, ``members.1``, ... in paths of modules and weights.

    Args:
        members: how many.
        architecture: dotted name of their class.
        sigmoid: outputs are regions.
        kwargs: arguments of the class.
    """

    def __init__(self, members: int, architecture: str, sigmoid: bool = False, **kwargs: Any) -> None:
        super().__init__()
        network: Any = locate(architecture)
        if network is None:
            raise ValueError(f"no class {architecture}")
        self.sigmoid = sigmoid
        self.members = nn.ModuleList([network(**kwargs) for _ in range(members)])

    def forward(self, x: torch.Tensor) -> Any:
        outputs = [member(x) for member in self.members]
        if isinstance(outputs[0], torch.Tensor):
            return self._mean(outputs)
        # deep supervision, finest output first: in evaluation only that one counts
        scales = [self._mean(scale) for scale in zip(*outputs, strict=True)]
        return scales if self.training else scales[0]

    def _mean(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(list(logits))
        if self.sigmoid:
            return stacked.sigmoid().mean(0).logit(eps=1e-6)
        return stacked.log_softmax(2).exp().mean(0).log()
