"""Build what a config of unknown origin defines without running it: known classes with plain arguments.

MONAI evaluates every ``$`` expression of a config and imports whatever a ``_target_`` names. Here an expression may
only compute with numbers, lists and references, and a class has to be a layer, a network or an inferer of MONAI, torch
or dynamic_network_architectures.
"""

import ast
import pydoc
import re
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.bundle.utils import merge_kv
from monai.inferers import Inferer
from torch import nn

from dcd_ext.errors import UserError

_TRAINER = "train::trainer"
_KNOWN = ("monai.networks.", "monai.inferers.", "torch.nn.", "dynamic_network_architectures.", "dcd_inference.windows")
_FUNCTIONS = {f.__name__: f for f in (abs, bool, float, int, len, list, max, min, range, round, sum, tuple)}
_SYNTAX = (
    *(ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Load, ast.Store, ast.Name, ast.Call),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.USub, ast.Not),
    *(ast.IfExp, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BoolOp, ast.And, ast.Or),
    *(ast.ListComp, ast.comprehension, ast.Subscript, ast.Slice),
)
_REFERENCE = re.compile(r"@([\w:#]+)")


def merged(config: dict[str, Any]) -> ConfigParser:
    """A config as MONAI reads it from a file: ``a#b`` or ``a::b`` as a key reaches into ``a``. Nothing is evaluated."""
    parser = ConfigParser({})
    for key, value in deepcopy(config).items():
        merge_kv(parser, key, value)
    return parser


def follow(parser: ConfigParser, key: str) -> str:
    """The key at the end of a chain of references that starts at ``key``."""
    for _ in range(20):
        text = parser.get(key)
        match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            break
        key = match[1]
    return key.replace("#", "::")


def entries(config: Any, name: str, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and definitions of the objects of a class, named with or without its module, in a config."""
    if isinstance(config, dict):
        if str(config.get("_target_")).split(".")[-1] == name:
            yield key, config
        for child, value in config.items():
            yield from entries(value, name, f"{key}::{child}" if key else child)


def trainer_of(parser: ConfigParser) -> str | None:
    """The id of the trainer: the usual one, or the only one."""
    found = [key for key, _ in entries(parser.config, "SupervisedTrainer")]
    return _TRAINER if _TRAINER in found else found[0] if len(found) == 1 else None


def either_separator(key: str) -> str:
    """A pattern for an id with any of MONAI's two separators."""
    return re.escape(key).replace("::", "(?:::|#)")


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A config with ``change`` of everything in it, innermost first, keys included."""
    if isinstance(value, dict):
        value = {changed(k, change): changed(v, change) for k, v in value.items()}
    elif isinstance(value, list):
        value = [changed(item, change) for item in value]
    return change(value)


def mapped(value: Any, pattern: re.Pattern[str], replacement: Any) -> Any:
    """Replaced in every text of a config, keys included."""
    return changed(value, lambda item: pattern.sub(replacement, item) if isinstance(item, str) else item)


class Definitions:
    """What the entries of one config define; ``parser`` has them with macros replaced.

    Args:
        config: the config's content.
        file: where it comes from, for messages.
        trusted: folder of a bundle whose expressions and ``scripts`` may run; None runs nothing.
    """

    def __init__(self, config: dict[str, Any], file: Path, trusted: Path | None = None) -> None:
        self.file, self.trusted = file, trusted
        self.parser = merged(config)
        try:
            self.parser.resolve_macro_and_relative_ids()
        except Exception as error:  # MONAI raises what the missing key or file happens to raise
            raise UserError("unresolved macro", file, "entries for every '%'", error, "correct it") from error
        if trusted is not None:
            self.parser["bundle_root"] = str(trusted)
            sys.path.insert(0, str(trusted))

    def trained_network(self) -> str | None:
        """The key of the definition of what the trainer trains."""
        text = self.parser.get(f"{trainer_of(self.parser)}::network")
        for _ in range(20):
            match = _REFERENCE.search(text) if isinstance(text, str) else None
            if match is None:
                break
            text = self.parser.get(match[1])
            if isinstance(text, dict) and "_target_" in text:
                if "module" not in text:
                    return match[1].replace("#", "::")
                text = text["module"]  # of DistributedDataParallel
        return None

    def build(self, definition: Any, key: str) -> Any:
        """The object or value that an entry of this name, whose content may differ from the file's, defines."""
        try:
            parser = ConfigParser(deepcopy(self.parser.config))
            # in its place, because its entries may refer to each other
            place = key if key in parser else "_definition"
            parser[place] = deepcopy(definition)
            return _Evaluation(parser).of(parser[place]) if self.trusted is None else parser.get_parsed_content(place)
        except _NotPlainError as error:
            expected, step = "classes of MONAI and torch with plain arguments", "pass --trust to run the bundle's code"
            raise UserError(f"'{key}' is not plain", self.file, expected, error, step) from error
        except UserError:
            raise
        except Exception as error:  # whatever the class finds wrong with its arguments
            found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"'{key}' cannot be built", self.file, "valid arguments", found, "correct it") from error


class _Evaluation:
    """Evaluates plain entries of one config."""

    def __init__(self, parser: ConfigParser) -> None:
        self._parser = parser

    def of(self, value: Any, depth: int = 0) -> Any:
        if depth > 50:
            raise _NotPlainError("entries that refer to each other in a circle")
        if isinstance(value, list):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, dict):
            values = {k: self.of(v, depth + 1) for k, v in value.items() if k != "_target_"}
            return _instance(value["_target_"], values) if "_target_" in value else values
        if isinstance(value, str) and value.startswith(("$", "@")):
            return self._expression(value.removeprefix("$"), depth)
        return value

    def _expression(self, text: str, depth: int) -> Any:
        names: dict[str, Any] = {}

        def reference(match: re.Match[str]) -> str:
            if match[1] not in self._parser:
                raise _NotPlainError(f"{text!r}, which refers to an unknown entry")
            names[f"_{len(names)}"] = self.of(self._parser.get(match[1]), depth + 1)
            return f"_{len(names) - 1}"

        code = _REFERENCE.sub(reference, text)
        try:
            tree = ast.parse(code.strip(), mode="eval")
        except SyntaxError as error:
            raise _NotPlainError(repr(text)) from error
        tree = ast.fix_missing_locations(_Classes(names).visit(tree))
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for node in ast.walk(tree):
            known = isinstance(node, _SYNTAX) and not (isinstance(node, ast.Call) and node.keywords)
            if isinstance(node, ast.Name):
                known = node.id in {*names, *bound, *_FUNCTIONS}
            elif isinstance(node, ast.Call):
                known = known and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
            if not known:
                raise _NotPlainError(repr(text))
        return eval(compile(tree, "config", "eval"), {"__builtins__": {}, **_FUNCTIONS, **names})


class _NotPlainError(Exception):
    """What makes a definition more than a known class with plain arguments."""


class _Classes(ast.NodeTransformer):
    """Replaces ``torch.nn.Conv3d`` and the like by a name for the class."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        path = ast.unparse(node)
        self.names[name := f"_{len(self.names)}"] = _known_class(path)
        return ast.Name(name, ast.Load())


def _known_class(path: str) -> type:
    found = pydoc.locate(path) if re.fullmatch(r"[\w.]+", path) and path.startswith(_KNOWN) else None
    if not (
        isinstance(found, type) and issubclass(found, (nn.Module, Inferer)) and found.__module__.startswith(_KNOWN)
    ):
        raise _NotPlainError(path)
    return found


def _instance(target: Any, arguments: dict[str, Any]) -> Any:
    if not isinstance(target, str) or arguments.pop("_mode_", "default") != "default":
        raise _NotPlainError(repr(target))
    # MONAI's own classes may be named without their module
    path = ConfigComponent({"_target_": target}).resolve_module_name()
    known = _known_class(path if isinstance(path, str) else target)
    return known(**{key: value for key, value in arguments.items() if not key.startswith("_")})
