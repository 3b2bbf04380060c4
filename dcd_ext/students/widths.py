"""Which arguments give a network its width, and the definition of a narrower one."""

import inspect
import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.students.teacher import TeacherBundle

# in MONAI and dynamic_network_architectures; the first that a network has is taken
_WIDTHS = ("features_per_stage", "init_filters", "filters", "channels", "features", "feature_size")
# of the transformer in such a network, narrowed with it
_TRANSFORMER = ("hidden_size", "mlp_dim", "embed_dim")
# narrower layers cost time and give little
_SMALLEST = 4
# attention heads of SwinUNETR, which divide its width
_MULTIPLE = {"SwinUNETR": 12}


def narrow(teacher: TeacherBundle, factor: int, width_args: Sequence[str] | None) -> dict[str, Any]:
    """The definition of the teacher's network with every width divided by ``factor``.

    Widths are ``width_args``, or else the first known one; refused if there is none, or one of them is none.
    """
    definition: dict[str, Any] = deepcopy(teacher.definition)
    name = type(teacher.network).__name__
    parameters = inspect.signature(type(teacher.network).__init__).parameters
    known = [n for n in _WIDTHS if n in parameters][:1]
    names = list(width_args or [*known, *(n for n in _TRANSFORMER if known and n in parameters)])
    if not names:
        expected, found = f"one of {', '.join(_WIDTHS)}", ", ".join(list(parameters)[1:])
        where = f"{teacher.definitions.file}, {teacher.network_key} ({name})"
        step = "pass --width_arg NAME if one of them is a width"
        raise UserError("no argument is known as the width", where, expected, found, step)
    for argument in names:
        value = _value(teacher, argument, parameters)
        if not _is_width(value):
            where, step = f"{teacher.definitions.file}, {teacher.network_key}::{argument}", "pass --width_arg NAME"
            raise UserError("not a width", where, "a number or a list of numbers", repr(value), step)
        multiple = _MULTIPLE.get(name, 1)
        if argument == "hidden_size" and "num_heads" in parameters:  # each head has as many
            multiple = int(_value(teacher, "num_heads", parameters))
        widths = [_divide(v, factor, multiple) for v in (value if _many(value) else [value])]
        definition[argument] = widths if _many(value) else widths[0]
    return {**definition, **_group_norm(teacher, parameters, [definition[n] for n in names])}


def _value(teacher: TeacherBundle, argument: str, parameters: Any) -> Any:
    """The argument's value: from the config, else the class's default, else what the network computed itself."""
    if argument in teacher.definition:
        return teacher.argument(argument)
    default = parameters[argument].default if argument in parameters else None
    return getattr(teacher.network, argument, None) if default in (None, inspect.Parameter.empty) else default


def _many(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_width(value: Any) -> bool:
    values = list(value) if _many(value) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)


def _divide(width: int, factor: int, multiple: int) -> int:
    """Divided, a multiple of ``multiple``, and never wider than it was."""
    narrower = max(width // factor // multiple * multiple, multiple, _SMALLEST)
    return min(width, narrower)


def _group_norm(teacher: TeacherBundle, parameters: Any, widths: list[Any]) -> dict[str, Any]:
    """Arguments for group norms, where the number of groups does not divide the new widths."""
    flat = [w for width in widths for w in (width if _many(width) else [width])]
    changed: dict[str, Any] = {}
    for name in {"norm", "norm_name"} & set(parameters):
        norm = teacher.argument(name) if name in teacher.definition else parameters[name].default
        if _many(norm) and len(norm) == 2 and str(norm[0]).lower() == "group":
            groups = int(norm[1].get("num_groups", 1))
            changed[name] = [norm[0], {**norm[1], "num_groups": math.gcd(groups, *flat)}]
    if "num_groups" in teacher.definition:
        changed["num_groups"] = math.gcd(teacher.argument("num_groups"), *flat)
    return changed
