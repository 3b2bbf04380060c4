"""Start a student from the strongest channels of its teacher."""

import copy
import re
from typing import Any

import torch
from torch import Tensor, fx, nn

from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.tensors import unwrap

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PER_CHANNEL = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.PReLU)
_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# of functions and of a tensor's methods; any other could mix or move channels, and is refused
_TIE = re.compile("i?(add|sub|mul)|(add|sub|mul)_|truediv|div|maximum|minimum")
_KEEP = re.compile(
    "relu_?|leaky_relu_?|elu|gelu|silu|mish|sigmoid|tanh|softplus|(log_)?softmax|hardtanh|clamp|dropout([23]d)?|interpolate"
    "|pad|(adaptive_)?(avg|max)_pool[23]d|mean|neg|contiguous|clone|detach|float|to"
)


def start_from_teacher(student: nn.Module, teacher: nn.Module) -> nn.Module:
    """Copy the strongest channels of the teacher's layers into the student's layers of the same name.

    Channels that the network adds to or multiplies by each other stay or go together (the groups of Fang et al.,
    DepGraph, CVPR 2023). Norms come with their channels and their running statistics.
    The strength of a channel is the sum of the mean squares of the weights that make or read it (Li et al., Pruning
    Filters, ICLR 2017), each as a share of its layer. Layers that only one of the two networks has, such as the
    projection of a shortcut between stages of different width, are left as they are. The same student is returned.

    Args:
        student: a network of the teacher's architecture, narrower or as wide; may be wrapped for several processes.
        teacher: made of convolutions without groups, norms, and operations that keep the order of the channels, combine
            them element by element or concatenate them; followed by :mod:`torch.fx`.

    Raises:
        UserError: if the teacher's channels cannot be followed, more or fewer would be left than the student has, or
            the two have other classes.
    """
    network, teacher = unwrap(student), teacher.network if isinstance(teacher, FrozenTeacher) else teacher
    channels, weights, start = _Channels(teacher), teacher.state_dict(), network.state_dict()
    what = "the student cannot start from its teacher"
    step = "give the student the teacher's architecture and no more channels, or leave this start out"
    if not weights.keys() & start.keys():
        raise UserError(what, type(network).__name__, "common layers", "none", step)
    kept = channels.strongest(weights, start)
    copied = {}
    for name in channels.makes:
        for key in (f"{name}.{part}" for part in _STATE):
            if key in weights and key in start:
                copied[key] = channels.select(name, weights[key], kept)
                if copied[key].shape != start[key].shape:
                    found, wanted = tuple(copied[key].shape), tuple(start[key].shape)
                    raise UserError(what, key, wanted, found, step)
    network.load_state_dict(copied, strict=False)
    return student


class _Channels:
    """The channels of a network as numbers: those that each layer makes and reads, None for the image or a number."""

    def __init__(self, network: nn.Module) -> None:
        self.makes: dict[str, Tensor | None] = {}
        self.reads: dict[str, Tensor | None] = {}
        self.outputs: list[Tensor] = []
        self._same = torch.arange(0)
        values: dict[fx.Node, Tensor | None] = {}
        try:
            self.network = copy.deepcopy(network)
            for module in self.network.modules():  # hooks would collect what is no tensor
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            decoder: Any = getattr(self.network, "decoder", None)
            if hasattr(decoder, "deep_supervision"):
                decoder.deep_supervision = True  # all heads are followed
            for node in fx.Tracer().trace(self.network).nodes:
                values[node] = self._follow(node, values)
        except Exception as error:
            name, step = type(network).__name__, "leave this start out for such a network"
            raise UserError("the teacher's channels cannot be followed", name, "", error, step) from None
        self.makes = {name: None if ids is None else self._same[ids] for name, ids in self.makes.items()}
        self.reads = {name: None if ids is None else self._same[ids] for name, ids in self.reads.items()}
        self.outputs = [self._same[ids] for ids in self.outputs]

    def _follow(self, node: fx.Node, values: dict[fx.Node, Tensor | None]) -> Tensor | None:
        known = [ids for ids in (values[each] for each in node.all_input_nodes) if ids is not None]
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if node.op == "call_module":
            return self._layer(str(name), known[0] if known else None)
        if node.op == "output":
            self.outputs = known
        elif node.op == "get_attr":
            raise ValueError(f"{name}, a parameter outside of layers")
        elif not known or name in ("getattr", "size", "dim"):
            return None
        elif name in ("cat", "concat", "stack"):
            parts: Any = node.args[0] if node.args else node.kwargs["tensors"]
            return torch.cat([ids for ids in (values[part] for part in parts) if ids is not None])
        elif _TIE.fullmatch(name):
            widest = max(known, key=len)
            for ids in known:
                if len(ids) > 1:
                    self._tie(widest, ids, name)
            return widest
        elif not _KEEP.fullmatch(name) and not (name == "getitem" and _keeps_channels(node.args[1])):
            raise ValueError(f"{name}()")
        return known[0] if known else None

    def _layer(self, name: str, ids: Tensor | None) -> Tensor | None:
        layer = self.network.get_submodule(name)
        if isinstance(layer, _CONVOLUTIONS):
            if layer.groups > 1 or "weight" not in layer._parameters:
                raise ValueError(f"{name}, a convolution {'with groups' if layer.groups > 1 else 'without own weight'}")
            if name in self.reads:
                self._tie(self.reads[name], ids, name)
                return self.makes[name]
            self.reads[name] = ids
            ids = torch.arange(len(self._same), len(self._same) + layer.out_channels)
            self._same = torch.cat([self._same, ids])
        elif isinstance(layer, _PER_CHANNEL):
            if name in self.makes:
                self._tie(self.makes[name], ids, name)
        elif layer.state_dict() or isinstance(layer, (nn.ChannelShuffle, nn.Unflatten)):
            raise ValueError(f"{name}, a {type(layer).__name__}")
        else:
            return ids
        self.makes[name] = ids
        return ids

    def _tie(self, one: Tensor | None, other: Tensor | None, name: str) -> None:
        """Let two lists of channels stay or go together."""
        if one is None and other is None:
            return
        if one is None or other is None or len(one) != len(other):
            raise ValueError(f"{name} of unlike channels")
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self._same[self._same == self._same[b]] = self._same[a].clone()

    def made_axis(self, name: str) -> int:
        """Axis of a convolution's weight that counts the channels it makes."""
        return int(isinstance(self.network.get_submodule(name), (nn.ConvTranspose2d, nn.ConvTranspose3d)))

    def axes(self, name: str, value: Tensor) -> list[tuple[int, Tensor]]:
        """Axes of a weight or bias, each with the numbers of its channels; none for one number for all channels."""
        makes, reads = self.makes[name], self.reads.get(name)
        if value.ndim < 2:
            found = [] if makes is None or value.numel() == 1 else [(0, makes)]
        else:
            made = self.made_axis(name)
            found = [(axis, ids) for axis, ids in ((made, makes), (1 - made, reads)) if ids is not None]
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
        shapes = {name: start[f"{name}.weight"].shape for name in self.reads if f"{name}.weight" in start}
        layers = [
            (n, ids, shapes[n][self.made_axis(n)]) for n, ids in self.makes.items() if n in shapes and ids is not None
        ]
        # the widest first: concatenated channels are chosen by the layers that make them
        for _, made, width in sorted(layers, key=lambda layer: -len(layer[1])):
            kept[made] = False
            kept[made[strength[made].topk(min(width, len(made))).indices]] = True
        what = "the student cannot start from its teacher"
        for name, made, width in layers:
            if (found := int(kept[made].sum())) != min(width, len(made)):
                step = "give layers that the teacher adds to each other one width, or leave this start out"
                raise UserError(what, name, width, found, step)
        for made in self.outputs:
            if (found := int(kept[made].sum())) != len(made):
                step = "give both the same classes, or leave this start out"
                raise UserError(what, "output channels", len(made), found, step)
        return kept


def _keeps_channels(index: Any) -> bool:
    return isinstance(index, tuple) and index[:2] == (slice(None), slice(None))
