"""Start a student from the strongest channels of its teacher."""

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def start_from_teacher(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Copy the strongest channels of the teacher's layers into the student's layers of the same name.

    Channels that the network adds to each other stay or go together (the groups of Fang et al., DepGraph, CVPR 2023).
    The strength of a channel is the sum of the mean squares of the weights that make or read it (Li et al., Pruning
    Filters, ICLR 2017), each as a share of its layer. Layers that only one of the two networks has, such as the
    projection of a shortcut between stages of different width, are left as they are. The same student is returned.

    Args:
        student: a network of the teacher's architecture, narrower or as wide.
        teacher: made of convolutions without groups, norms, and operations that keep the order of the channels or add
            or concatenate them; followed by :mod:`torch.fx`.

    Raises:
        UserError: if the teacher's channels cannot be followed, or fewer would be left than the student has.
    """
    if isinstance(teacher, FrozenTeacher):
        teacher = teacher.network
    channels, weights, start = _Channels(teacher), teacher.state_dict(), student.state_dict()
    what = "the student cannot start from its teacher"
    step = "give the student the teacher's architecture and no more channels, or leave this start out"
    if not weights.keys() & start.keys():
        raise UserError(what, type(student).__name__, "common layers", "none", step)
    kept = channels.strongest(weights, start)
    copied = {}
    for name in channels.makes:
        for key in (f"{name}.weight", f"{name}.bias"):
            if key in weights and key in start:
                copied[key] = channels.select(name, weights[key], kept)
                if copied[key].shape != start[key].shape:
                    found, wanted = tuple(copied[key].shape), tuple(start[key].shape)
                    raise UserError(what, key, wanted, found, step)
    student.load_state_dict(copied, strict=False)
    return student


class _Channels:
    """The channels of a network as numbers: those that each layer makes and reads, None for the image."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)
        decoder: Any = getattr(self.network, "decoder", None)
        if hasattr(decoder, "deep_supervision"):
            decoder.deep_supervision = True  # all heads are followed
        self.makes: dict[str, Tensor] = {}
        self.reads: dict[str, Tensor | None] = {}
        self._same = torch.arange(0)
        values: dict[fx.Node, Tensor | None] = {}
        try:
            for node in fx.Tracer().trace(self.network).nodes:
                values[node] = self._follow(node, [values[each] for each in node.all_input_nodes])
        except Exception as error:
            name, step = type(network).__name__, "leave this start out for such a network"
            raise UserError("the teacher's channels cannot be followed", name, "", error, step) from None
        self.makes = {name: self._same[ids] for name, ids in self.makes.items()}
        self.reads = {name: None if ids is None else self._same[ids] for name, ids in self.reads.items()}

    def _follow(self, node: fx.Node, inputs: list[Tensor | None]) -> Tensor | None:
        first = inputs[0] if inputs else None
        if node.op == "call_module":
            layer = self.network.get_submodule(str(node.target))
            if isinstance(layer, _CONVOLUTIONS):
                self.reads[str(node.target)] = first
                first = torch.arange(len(self._same), len(self._same) + layer.out_channels)
                self._same = torch.cat([self._same, first])
            if first is not None:
                self.makes[str(node.target)] = first
        elif node.target in (torch.cat, torch.concat):
            return torch.cat([self._same[ids] for ids in inputs if ids is not None])
        elif node.target in (operator.add, operator.iadd, torch.add):
            for one, other in zip(*(self._same[ids] for ids in inputs if ids is not None), strict=True):
                self._same[self._same == other] = one.clone()
        return first

    def made_axis(self, name: str) -> int:
        """Axis of a convolution's weight that counts the channels it makes."""
        return int(isinstance(self.network.get_submodule(name), (nn.ConvTranspose2d, nn.ConvTranspose3d)))

    def axes(self, name: str, value: Tensor) -> list[tuple[int, Tensor]]:
        """Axes of a weight or bias, each with the numbers of its channels; none for one number for all channels."""
        if value.ndim == 1:
            found = [(0, self.makes[name])] if len(value) > 1 else []
        else:
            made, read = self.made_axis(name), self.reads.get(name)
            found = [(made, self.makes[name])] + ([] if read is None else [(1 - made, read)])
        for axis, ids in found:
            if len(ids) != value.shape[axis]:
                step = "leave this start out for such a network"
                raise UserError("the teacher's channels cannot be followed", name, len(ids), value.shape[axis], step)
        return found

    def select(self, name: str, value: Tensor, kept: Tensor) -> Tensor:
        """A weight or bias of which only the kept channels are left."""
        for axis, ids in self.axes(name, value):
            value = value.index_select(axis, kept[ids].nonzero().flatten().to(value.device))
        return value

    def strongest(self, weights: dict[str, Tensor], start: dict[str, Tensor]) -> Tensor:
        """Whether each channel stays, of every group as many as the student's layers make."""
        strength, kept = torch.zeros(len(self._same)), torch.ones(len(self._same), dtype=torch.bool)
        for name in self.reads:
            weight = weights[f"{name}.weight"].float().cpu()
            for axis, ids in self.axes(name, weight):
                power = weight.transpose(0, axis).flatten(1).square().mean(1)
                strength.index_add_(0, ids, power / power.sum().clamp_min(1e-12))
        for name in self.reads.keys() & {key.removesuffix(".weight") for key in start}:
            ids = self.makes[name]
            width = min(start[f"{name}.weight"].shape[self.made_axis(name)], len(ids))
            kept[ids] = False
            kept[ids[strength[ids].topk(width).indices]] = True
        return kept
