"""Prompt tuning for FreeKD: train the frequency prompts on the task with a frozen teacher."""

import logging
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.losses._options import check_number, check_whole
from dcd_ext.losses.prompts import FORMAT, masked_reconstruction
from dcd_ext.networks import seeded
from dcd_ext.tensors import plain_tensor, unwrap
from dcd_ext.weights import save_checkpoint

_log = logging.getLogger(__name__)


class PromptTuner(nn.Module):
    """A frozen teacher whose hooked features are replaced by their masked reconstruction.

    Everything that uses the output of a hooked module, including skip connections, receives the masked feature.
    Unusable options, and paths that name no module, are refused.

    Args:
        teacher: the teacher, which is frozen and put in evaluation mode; it is no part of this module's state.
        taps: dotted paths of the modules whose outputs are masked.
        channels: their widths.
        tokens: prompts T per band.
        levels: Haar levels J.

    Attributes:
        prompts: per stage (J + 1, T, C_i), the only parameters; drawn from N(0, 0.01²) with a seed of their own.
        diversity: after a call, the overlap of different tokens' masks (mean soft Dice), averaged over the stages.
    """

    def __init__(
        self,
        teacher: nn.Module,
        taps: Sequence[str],
        channels: Sequence[int],
        tokens: int = 6,
        levels: int = 3,
    ) -> None:
        super().__init__()
        check_whole("tokens", tokens)
        check_whole("levels", levels)
        if len(taps) != len(channels):
            raise ValueError(f"one module path per entry of channels is needed, got {len(taps)} and {len(channels)}")
        network = unwrap(teacher.network if isinstance(teacher, FrozenTeacher) else teacher)
        # a list keeps the teacher out of this module's parameters and state
        self._network = [network.eval().requires_grad_(False)]
        self._hooks = FeatureHooks(network, taps, replace=self._mask)
        self.channels = tuple(channels)
        with seeded():
            self.prompts = nn.ParameterList(torch.randn(levels + 1, tokens, c) * 0.01 for c in channels)
        self.diversity = torch.zeros(())

    def forward(self, image: torch.Tensor) -> Any:
        """The teacher's output for ``image`` (B, M, X, Y, Z) with masked features."""
        self._overlaps: list[torch.Tensor] = []
        with self._hooks:
            output = self._network[0](plain_tensor(image))
        self._hooks.pop()
        self.diversity = torch.stack(self._overlaps).mean()
        return output

    def save(self, path: str) -> None:
        """Write the prompts to the file that ``FreeKDLoss(prompts=path)`` reads."""
        save_checkpoint({"format": FORMAT, "prompts": [p.detach().cpu().clone() for p in self.prompts]}, path)

    def _mask(self, i: int, feature: torch.Tensor) -> torch.Tensor:
        if feature.ndim != 5 or feature.shape[1] != self.channels[i]:
            expected = f"(B, {self.channels[i]}, X, Y, Z)"
            raise ValueError(f"teacher feature of stage {i} must have shape {expected}, got {tuple(feature.shape)}")
        with torch.autocast(feature.device.type, enabled=False):
            masked, overlap = masked_reconstruction(self.prompts[i], feature)
        self._overlaps.append(overlap)
        return masked


def tune_prompts(
    tuner: PromptTuner,
    batches: Iterable[Mapping[str, torch.Tensor]],
    task_loss: Callable[[Any, torch.Tensor], torch.Tensor],
    iterations: int = 1000,
    lr: float = 0.1,
    diversity_weight: float = 1.0,
    amp: bool = False,
    save_as: str | None = None,
) -> list[float]:
    """Train the prompts alone by SGD (momentum 0.9, rate falling with power 0.9); the task loss of every step.

    Refused if there is no batch, an option is out of range, or the loss is not finite.

    Args:
        tuner: on the device to use.
        batches: mappings with ``image`` (B, M, X, Y, Z) and ``label`` (B, 1, X, Y, Z); begun anew when exhausted.
        task_loss: the segmentation loss, called with the teacher's output and the label.
        lr: learning rate of the first step.
        diversity_weight: of ``tuner.diversity`` in the loss.
        amp: run the teacher in bfloat16 autocast.
        save_as: file to write the tuned prompts to, see :meth:`PromptTuner.save`.
    """
    check_whole("iterations", iterations)
    check_number("lr", lr)
    optimizer = torch.optim.SGD(tuner.prompts.parameters(), lr=lr, momentum=0.9)
    history: list[float] = []
    # disable=None: no bar unless the output is a terminal
    steps = tqdm(range(iterations), desc="tune prompts", disable=None)
    for step, batch in zip(steps, _forever(batches), strict=False):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / iterations) ** 0.9
        optimizer.zero_grad()
        image, label = (plain_tensor(batch[key]).to(tuner.prompts[0].device) for key in ("image", "label"))
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=amp):
            task = task_loss(tuner(image), label)
        (task + diversity_weight * tuner.diversity).backward()
        if not all(x.isfinite().all() for x in (task, *(p.grad for p in tuner.prompts if p.grad is not None))):
            found = f"a loss of {task.item()}, or its gradient"
            raise UserError("prompt tuning diverged", f"step {step}", "a finite loss and gradient", found, "lower lr")
        history.append(task.item())
        optimizer.step()
    tenth = max(iterations // 10, 1)
    first, last = statistics.fmean(history[:tenth]), statistics.fmean(history[-tenth:])
    _log.info(f"{iterations} steps, segmentation loss of the masked teacher from {first:.4f} to {last:.4f}")
    if save_as is not None:
        tuner.save(save_as)
        _log.info(f"Tuned prompts: {save_as}")
    return history


def _forever(batches: Iterable[Mapping[str, torch.Tensor]]) -> Iterator[Mapping[str, torch.Tensor]]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise UserError("no data to tune on", "batches", "at least one batch", "none", "check 'dataset_dir'")
