"""Judge ``a.b.c`` in an expression: which module, class or value it walks through."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Set

from dcd_ext.audit.allowed_values import ATTRIBUTES, METHODS, PATH_ATTRIBUTES, PATH_METHODS
from dcd_ext.audit.names import is_allowed, is_careful, is_enum

__all__ = ["ChainRules", "chain"]


def chain(node: ast.expr) -> tuple[ast.expr, list[str]]:
    """Root and attribute names of ``root.a.b.c``."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return node, names[::-1]


class ChainRules:
    """Decides about chains of attributes.

    Args:
        aliases: name -> dotted name, of all imports.
        bound: variables of lambdas and comprehensions; filled while an expression is read.
        own_modules: modules below the bundle's ``scripts``.
    """

    def __init__(self, aliases: Mapping[str, str], bound: Set[str], own_modules: frozenset[str]) -> None:
        self._aliases, self._bound, self._own_modules = aliases, bound, own_modules

    def known(self, name: str) -> bool:
        """Whether a dotted name is on the allow-list, or is one of the bundle's own scripts, which are findings."""
        if name.startswith("scripts."):
            return name in self._own_modules or name.rpartition(".")[0] in self._own_modules
        return is_allowed(name)

    def is_module(self, node: ast.expr) -> bool:
        """Whether it is a name that an import binds."""
        return isinstance(node, ast.Name) and node.id not in self._bound and node.id in self._aliases

    def dotted(self, node: ast.expr) -> str | None:
        """The dotted name that a chain from an imported name stands for."""
        root, names = chain(node)
        if not (isinstance(root, ast.Name) and self.is_module(root)):
            return None
        return ".".join([self._aliases[root.id], *names])

    def is_path(self, node: ast.expr) -> bool:
        """Whether it is ``pathlib.Path(...)``."""
        return isinstance(node, ast.Call) and not node.keywords and self.dotted(node.func) == "pathlib.Path"

    def problems(self, node: ast.Attribute, called: bool) -> list[str]:
        """What is wrong with a chain.

        Args:
            node: the whole chain.
            called: whether it is what a call calls.
        """
        root, attributes = chain(node)
        if self.is_path(root):
            return self._path_problems(attributes, called)
        dotted = self.dotted(node)
        if dotted is None:
            return self._value_problems(attributes, called)
        names = dotted.split(".")
        for end in range(len(names), 0, -1):
            name, rest = ".".join(names[:end]), names[end:]
            if not self.known(name):
                continue
            if not rest:
                return (
                    [f"{name!r} as a value: its arguments cannot be judged"] if not called and is_careful(name) else []
                )
            if is_enum(name) and len(rest) == 1 and rest[0].isupper() and not called:
                return []
            return self._value_problems(rest, called)
        return [f"{dotted!r} is not on the allow-list"]

    def _value_problems(self, attributes: list[str], called: bool) -> list[str]:
        """Attributes of values are data, or methods that are called at once."""
        read = attributes[:-1] if called else attributes
        problems = [f"attribute {name!r} is not on the allow-list" for name in read if name not in ATTRIBUTES]
        if called and attributes[-1] not in METHODS:
            problems.append(f"call of {attributes[-1]!r}, which is not on the allow-list")
        return problems

    def _path_problems(self, attributes: list[str], called: bool) -> list[str]:
        """A path must not become a value: it could be written, moved or removed by any name."""
        while attributes and attributes[0] == "parent":
            attributes = attributes[1:]
        if not attributes:
            return ["'parent' of a path as a value"]
        first, *rest = attributes
        allowed = PATH_METHODS if called and not rest else PATH_ATTRIBUTES
        if first not in allowed:
            return [f"{first!r} of a path, which is not on the allow-list"]
        return self._value_problems(rest, called) if rest else []
