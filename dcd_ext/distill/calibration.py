"""Compare the gradients of distillation and segmentation loss, and propose the weight for a target ratio."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.data.utils import set_rnd
from torch import nn
from tqdm import tqdm

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.losses.base import DistillationLoss
from dcd_ext.tensors import plain_tensor, unwrap
from dcd_ext.weights import load_weights, read_checkpoint

SCOPES = ("encoder", "all")


class Norms(NamedTuple):
    """L2 norms of the two unweighted losses' gradients."""

    seg: float
    kd: float


class GradientMeter:
    """Gradient norms of segmentation and distillation loss over the student's parameters, batch by batch.

    The student is not trained. The gradients are float32, without mixed precision and without clipping.

    Args:
        network: the student.
        loss: segmentation loss, called with the student's output and the label.
        kd_loss: distillation loss, called as :class:`dcd_ext.distill.DistillationHandler` does.
        taps: dotted paths of the modules of both networks whose outputs are compared.

    Attributes:
        scopes: "all" parameters, before it those of the student's "encoder" if it has a module of this name.
    """

    def __init__(
        self, network: nn.Module, teacher: FrozenTeacher, loss: Any, kd_loss: DistillationLoss, taps: Sequence[str]
    ) -> None:
        self.network, self.teacher, self.loss, self.kd_loss = network.train(), teacher, loss, kd_loss
        self._student_hooks = FeatureHooks(network, taps)
        stop = not kd_loss.needs_teacher_output
        self._teacher_hooks = FeatureHooks(teacher.network, taps, stop_after_last=stop)
        named = [(name, p) for name, p in unwrap(network).named_parameters() if p.requires_grad]
        self._parameters = [p for _, p in named]
        self._in_encoder = [name.startswith("encoder.") for name, _ in named]
        self.scopes = SCOPES if any(self._in_encoder) else SCOPES[1:]

    def __call__(self, image: torch.Tensor, label: torch.Tensor) -> dict[str, Norms]:
        """Norms by scope for ``image`` (B, M, X, Y, Z) and ``label`` (B, 1, X, Y, Z); refused if one is not finite."""
        arguments = self._forward(image)
        seg = self._norms(self.loss(arguments[2], label), keep=True)
        kd = self._norms(self.kd_loss(*arguments, label), keep=False)
        return {scope: Norms(seg[scope], kd[scope]) for scope in self.scopes}

    def fit(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Train the distillation loss's own parameters alone, one step of Adam per batch.

        Without this, untrained projections would give a far larger loss than in any later epoch.
        """
        optimizer = torch.optim.Adam([p for p in self.kd_loss.parameters() if p.requires_grad], lr=1e-2)
        for image, label in batches:
            with torch.no_grad():
                arguments = self._forward(image)
            optimizer.zero_grad()
            self.kd_loss(*arguments, label).backward()
            optimizer.step()

    def _forward(self, image: torch.Tensor) -> tuple[Any, ...]:
        """The arguments of the distillation loss except for the label."""
        with self._student_hooks:
            output = self.network(image)
        teacher_output = None
        with self._teacher_hooks:
            teacher_output = self.teacher(image)
        return self._student_hooks.pop(), self._teacher_hooks.pop(), output, teacher_output

    def _norms(self, loss: torch.Tensor, keep: bool) -> dict[str, float]:
        gradients = torch.autograd.grad(loss, self._parameters, retain_graph=keep, allow_unused=True)
        squares = [0.0 if g is None else g.double().square().sum().item() for g in gradients]
        if not all(torch.tensor(squares).isfinite()):
            where, step = "kd_loss or loss", "check the checkpoint"
            raise UserError("gradient is not finite", where, "numbers", "inf or nan", step)
        chosen = [s for s, is_inside in zip(squares, self._in_encoder, strict=True) if is_inside]
        return {"encoder": sum(chosen) ** 0.5, "all": sum(squares) ** 0.5}


def summarise_norms(norms: Sequence[Norms], target_ratio: float, weight: float) -> dict[str, float]:
    """Medians over batches, and the weight whose median ``weight · |grad KD| / |grad seg|`` is ``target_ratio``.

    ``norms`` has one entry per batch; ``weight`` is the configured one. A gradient that vanishes is refused: no weight
    reaches the ratio.
    """
    if any(n.kd == 0 or n.seg == 0 for n in norms):
        found = f"{min(n.kd for n in norms):g} (kd_loss), {min(n.seg for n in norms):g} (loss)"
        raise UserError("a gradient vanishes", "calibration", "norms above 0", found, "use other weights or batches")
    ratios = [n.kd / n.seg for n in norms]
    ratio = statistics.median(ratios)
    return {
        "seg": statistics.median(n.seg for n in norms),
        "kd": statistics.median(n.kd for n in norms),
        "ratio": ratio,
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "weighted_ratio": weight * ratio,
        "proposed_weight": target_ratio / ratio,
    }


def calibrate(
    parser: ConfigParser,
    checkpoint: str | None = None,
    batches: int = 8,
    target_ratio: float = 0.2,
    fit_steps: int = 30,
) -> dict[str, Any]:
    """Measure one method as the training config of a bundle describes it; one without distillation is refused.

    Args:
        parser: ``train.json`` of a ``student_dcd`` bundle and overlays, after ``initialize``.
        checkpoint: student weights from the middle of a run: ``checkpoint_last.pt``, whose trained projections are
            taken over if they are this method's, or ``model.pt``; None: the initial weights.
        batches: how many augmented training batches to look at; they are the same for every method.
        target_ratio: target of ``kd_weight · |grad KD| / |grad seg|``.
        fit_steps: steps for which projections that do not come from the checkpoint are trained first.

    Returns:
        ``kd_weight``, ``projections`` ("initial", "fitted", "from the checkpoint" or "none"), and under each scope the
        medians of :func:`summarise_norms` with the norms of every batch.
    """
    if batches < 1 or target_ratio <= 0 or fit_steps < 0:
        where, found = "--batches, --target_ratio, --fit_steps", f"{batches}, {target_ratio}, {fit_steps}"
        raise UserError("option out of range", where, "from 1, above 0, from 0", found, "correct them")
    if "kd_loss" not in parser:
        where = parser.get("bundle_root")
        raise UserError("no distillation in the config", where, "'kd_loss'", "none", "use a student_dcd bundle")
    network, kd_loss = parser.get_parsed_content("network"), parser.get_parsed_content("kd_loss")
    projections = _load(network, kd_loss, checkpoint)
    teacher, loss = parser.get_parsed_content("teacher"), parser.get_parsed_content("loss")
    meter = GradientMeter(network, teacher, loss, kd_loss, parser.get_parsed_content("taps"))
    if projections == "initial" and fit_steps:
        meter.fit(_progress(_batches(parser, seed_offset=1), fit_steps, "fit projections"))
        projections = "fitted"
    norms = [meter(*batch) for batch in _progress(_batches(parser), batches, "gradients")]
    weight = float(parser.get_parsed_content("kd_weight"))
    report: dict[str, Any] = {"kd_weight": weight, "projections": projections}
    for scope in meter.scopes:
        values = [batch[scope] for batch in norms]
        summary = summarise_norms(values, target_ratio, weight)
        report[scope] = {**summary, "batches": [n._asdict() for n in values]}
    return report


def _load(network: nn.Module, kd_loss: nn.Module, checkpoint: str | None) -> str:
    """Load the checkpoint; returns the source of the loss's own parameters."""
    own = kd_loss.state_dict()
    source = "initial" if any(p.requires_grad for p in kd_loss.parameters()) else "none"
    if checkpoint is None:
        return source
    next_step = "pass --checkpoint with weights of this bundle's student"
    load_weights(unwrap(network), checkpoint, next_step)
    saved = read_checkpoint(checkpoint, next_step).get("kd_loss")
    if not own or not isinstance(saved, Mapping) or _shapes(saved) != _shapes(own):
        return source
    kd_loss.load_state_dict(saved)
    return "from the checkpoint"


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def _progress(batches: Iterator[Any], number: int, title: str) -> Iterable[Any]:
    return tqdm(islice(batches, number), total=number, desc=title, unit="batch", leave=False, disable=None)


def _batches(parser: ConfigParser, seed_offset: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented training batches without end, the same in every call with the same offset."""
    seed, device = parser.get_parsed_content("seed") + seed_offset, parser.get_parsed_content("device")
    # made first: MONAI's data loader draws random numbers when it is
    loader: Iterable[Mapping[str, Any]] = parser.get_parsed_content("train::dataloader")
    torch.manual_seed(seed)
    set_rnd(parser.get_parsed_content("train::dataset"), seed)
    while True:
        for batch in loader:
            yield plain_tensor(batch["image"]).to(device), plain_tensor(batch["label"]).to(device)
