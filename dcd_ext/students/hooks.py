"""Propose the modules whose outputs teacher and student compare, from one forward pass of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.networks.layers import SkipConnection
from torch import nn

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.errors import UserError
from dcd_ext.tables import Table

_SIDES = (64, 96, 128)
# the first three return what the module before them did, the last what encoder and decoder did
_PASSED_OVER = (nn.Identity, nn.Dropout, nn.Dropout3d, SkipConnection)


@dataclass(frozen=True)
class Hook:
    """A module with the shapes (C, X, Y, Z) of its output in both networks."""

    path: str
    teacher: tuple[int, ...]
    student: tuple[int, ...]


def input_shapes(shape: Sequence[int] | None, documented: Sequence[Any]) -> list[tuple[int, ...]]:
    """Spatial shapes to try: the given one, or a small one and at last the documented one, which may have formulas."""
    if shape:
        return [tuple(shape)]
    whole = len(documented) == 3 and all(isinstance(side, int) and side > 0 for side in documented)
    known = [tuple(documented)] if whole else []
    small = whole and max(documented) <= min(_SIDES)
    cubes = [(side,) * 3 for side in _SIDES]
    return [*known, *cubes] if small else [*cubes, *known]


def propose(
    teacher: nn.Module, student: nn.Module, channels: int, shapes: Sequence[tuple[int, ...]], paths: Sequence[str] = ()
) -> list[Hook]:
    """The hooks at ``paths`` or, without paths, one per resolution on the way down to the coarsest.

    Both networks are in evaluation mode, on the CPU; ``channels`` are those of the input, whose spatial ``shapes`` are
    tried until one passes through both. Refused if none does, a path is wrong, or there is nothing to propose.
    """
    problem = None
    for shape in shapes:
        image = torch.randn((1, channels, *shape), generator=torch.Generator().manual_seed(0))
        try:
            hooks = _given(teacher, student, image, paths) if paths else _found(teacher, student, image)
        except UserError:
            raise
        except ImportError as error:
            found = str(error).split(". ")[0]
            raise UserError("a package is missing", type(teacher).__name__, "it", found, "pip install it") from error
        except Exception as error:  # a shape that the strides do not divide, or a norm over one voxel
            problem = error
            continue
        if not hooks:
            expected, step = "modules with a feature map (B, C, X, Y, Z)", "pass --hooks with module paths"
            raise UserError("no feature to compare", type(teacher).__name__, expected, "none", step)
        return hooks
    text = " ".join(str(problem).split())[:160]
    tried = ", ".join("×".join(map(str, shape)) for shape in shapes)
    raise UserError("no input fits the network", type(teacher).__name__, f"one of {tried}", text, "pass --patch X Y Z")


@torch.no_grad()
def _given(teacher: nn.Module, student: nn.Module, image: torch.Tensor, paths: Sequence[str]) -> list[Hook]:
    outputs = []
    for network in (teacher, student):
        with FeatureHooks(network, paths) as hooks:
            network(image)
        outputs.append([tuple(feature.shape[1:]) for feature in hooks.pop()])
    return [Hook(*hook) for hook in zip(paths, *outputs, strict=True)]


def _found(teacher: nn.Module, student: nn.Module, image: torch.Tensor) -> list[Hook]:
    narrow = dict(_outputs(student, image))
    passed = [Hook(path, shape, narrow[path]) for path, shape in _outputs(teacher, image) if path in narrow]
    # channels last (swin blocks) and tokens differ in another place than the first
    usable = [h for h in passed if len(h.teacher) == 4 and h.teacher[1:] == h.student[1:] and h.teacher != h.student]
    levels: dict[tuple[int, ...], Hook] = {}
    for hook in _way_down(usable):
        # the last of each resolution; at the coarsest a decoder already reduces the channels
        if hook.teacher[0] >= levels.get(hook.teacher[1:], hook).teacher[0]:
            levels.pop(hook.teacher[1:], None)  # in the order of their run
            levels[hook.teacher[1:]] = hook
    return list(levels.values())


def _way_down(hooks: list[Hook]) -> list[Hook]:
    """The hooks up to those that first have the coarsest resolution.

    A vision transformer (UNETR) begins there, with its patch embedding, and convolves what it makes of that later: then
    those after the embedding, up to the last that have the coarsest resolution among them.
    """
    first = _at_coarsest(hooks)
    end = next((i for i in range(first[0], len(hooks)) if i not in first), len(hooks))
    if first[:1] == [0] and hooks[end:]:
        rest = hooks[end:]
        return rest[: _at_coarsest(rest)[-1] + 1]
    return hooks[:end]


def _at_coarsest(hooks: list[Hook]) -> list[int]:
    """Positions of the hooks with the fewest voxels."""
    voxels = [math.prod(hook.teacher[1:]) for hook in hooks]
    return [i for i, number in enumerate(voxels) if number == min(voxels)]


@torch.no_grad()
def _outputs(network: nn.Module, image: torch.Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """Module path and shape (C, ...) of every tensor that one module returns once, in the order of their return."""
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    handles = []
    for path, module in network.named_modules():
        if path and not isinstance(module, _PASSED_OVER):

            def keep(_module: nn.Module, _inputs: Any, output: Any, path: str = path) -> None:
                if isinstance(output, torch.Tensor):
                    seen.setdefault(path, []).append((output, output.sum()))

            handles.append(module.register_forward_hook(keep))
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    # an activation that works in place changes what the layer before it returned
    once = {path: calls[0] for path, calls in seen.items() if len(calls) == 1}
    return [(path, tuple(o.shape[1:])) for path, (o, total) in once.items() if torch.equal(o.sum(), total)]


def table(hooks: Sequence[Hook]) -> Table:
    """For a terminal."""
    rows = []
    for hook in hooks:
        shapes = ["×".join(map(str, shape)) for shape in (hook.teacher, hook.student)]
        rows.append([hook.path, *shapes, f"Conv3d({hook.student[0]}, {hook.teacher[0]}, 1)"])
    return Table("", ["module", "teacher", "student", "projection"], rows)
