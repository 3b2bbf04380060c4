"""Judge the ``$`` expressions of a config by their syntax tree: MONAI hands them to ``eval``."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping

from dcd_ext.share.allowed import BUILTINS, METHODS, PATH_METHODS, UNSAFE_ARGUMENTS
from dcd_ext.share.names import is_allowed, is_allowed_import

__all__ = ["expression_problems", "import_aliases", "parse_import"]

# the longest of ours has 240 characters; what is longer is not read by people either
MAX_LENGTH, MAX_NODES = 500, 200
_REFERENCE = re.compile(r"[@%](?:::|#)*\w*(?:(?:::|#)\w*)*")
_VALUE = "_reference_"
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword),
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Lambda, ast.arguments, ast.arg, ast.Starred),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.comprehension, ast.JoinedStr, ast.FormattedValue),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def parse_import(text: str) -> ast.Import | ast.ImportFrom | None:
    """The import statement that ``text`` (without ``$``) consists of, or None."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[0] if len(body) == 1 and isinstance(body[0], ast.Import | ast.ImportFrom) else None


def import_aliases(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name an import binds -> dotted name it stands for."""
    if isinstance(node, ast.Import):
        return {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
    return {a.asname or a.name: f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names}


def import_problems(node: ast.Import | ast.ImportFrom, own_modules: frozenset[str]) -> list[str]:
    """What is wrong with an import statement of a config."""
    problems = []
    if isinstance(node, ast.ImportFrom):
        if node.level or not is_allowed_import(node.module or "", own_modules):
            return [f"import of {'.' * node.level}{node.module or ''}, which is not on the allow-list"]
        if node.module and node.module.split(".")[0] == "scripts":
            return []
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        problems += [f"import of {n}" for n in names if not is_allowed(n) and not is_allowed_import(n)]
    else:
        names = [alias.name for alias in node.names if not is_allowed_import(alias.name, own_modules)]
        problems += [f"import of {name}" for name in names]
    for name, meaning in import_aliases(node).items():
        # 'import os as glob' would make the next reader of the config believe it
        if name != meaning and (name in BUILTINS or name in sys.stdlib_module_names):
            problems.append(f"import of {meaning} under the name of {name}")
    return [f"{problem}, which is not on the allow-list" for problem in problems]


def expression_problems(text: str, aliases: Mapping[str, str], own_modules: frozenset[str]) -> list[str]:
    """What is wrong with one expression.

    Args:
        text: the config value, ``$`` included.
        aliases: names that the bundle's imports bind, with what they stand for.
        own_modules: modules below the bundle's ``scripts``.

    Returns:
        One line per problem; empty if everything in it is on the allow-list.
    """
    if len(text) > MAX_LENGTH:
        return [f"oversized expression: {len(text)} characters, more than {MAX_LENGTH}"]
    source = text.lstrip("$").strip()
    statement = parse_import(source)
    if statement is not None:
        return import_problems(statement, own_modules)
    try:
        tree = ast.parse(_REFERENCE.sub(_VALUE, source), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        return [f"not an expression: {type(e).__name__}"]
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        return [f"oversized expression: more than {MAX_NODES} parts"]
    judge = _Judge(aliases, own_modules)
    judge.visit(tree)
    return judge.problems


class _Judge(ast.NodeVisitor):
    """Walks an expression and collects what is not allowed in it."""

    def __init__(self, aliases: Mapping[str, str], own_modules: frozenset[str]) -> None:
        # MONAI puts these into the globals of each expression itself
        self.aliases = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy", **aliases}
        self.own_modules = own_modules
        self.bound: set[str] = {_VALUE}
        self.problems: list[str] = []

    def visit(self, node: ast.AST) -> None:
        """Refuse syntax that no config needs (assignments, ``await``, ``yield``)."""
        if not isinstance(node, _NODES):
            self.problems.append(f"{type(node).__name__} in an expression")
            return
        super().visit(node)

    def visit_Expression(self, node: ast.Expression) -> None:
        """Names bound by lambdas and comprehensions are known before their bodies are read."""
        for part in ast.walk(node):
            if isinstance(part, ast.arg):
                self.bound.add(part.arg)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                self.bound.add(part.id)
        shadowed = sorted(self.bound & set(self.aliases))
        if shadowed:
            self.problems.append(f"{', '.join(shadowed)} given another meaning")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """A variable, a builtin or, by itself, a name that ``from x import y`` bound."""
        if node.id in self.bound or node.id in BUILTINS:
            return
        meaning = self.aliases.get(node.id)
        if meaning is None:
            self.problems.append(f"{node.id!r} is not on the allow-list")
        elif not self._known(meaning):
            self.problems.append(f"{meaning!r} as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """``module.name`` has to be on the list; attributes of values must not lead into modules or internals."""
        root, attributes = _chain(node)
        if self._is_path(root):
            refused = [name for name in attributes if name not in PATH_METHODS]
            self.problems += [f"{name!r} of a path, which is not on the allow-list" for name in refused]
            for argument in root.args:  # type: ignore[attr-defined]
                self.visit(argument)
            return
        if not self._is_module(root):
            self._judge_attributes(attributes)
            self.visit(root)
            return
        names = [self.aliases[root.id], *attributes]  # type: ignore[attr-defined]
        for end in range(len(names), 0, -1):
            if self._known(".".join(names[:end])):
                self._judge_attributes(names[end:])
                return
        self.problems.append(f"{'.'.join(names)!r} is not on the allow-list")

    def visit_Call(self, node: ast.Call) -> None:
        """Methods have a list of their own; arguments may not switch a protection off."""
        if isinstance(node.func, ast.Attribute):
            root, attributes = _chain(node.func)
            names = [self.aliases[root.id], *attributes] if self._is_module(root) else []  # type: ignore[attr-defined]
            known = [self._known(".".join(names[:end])) for end in range(1, len(names) + 1)]
            # a chain of module names of which none is known is reported where it is visited
            method = not names or (any(known) and not known[-1])
            if method and attributes[-1] not in METHODS and not self._is_path(root):
                self.problems.append(f"call of {attributes[-1]!r}, which is not on the allow-list")
        for keyword in node.keywords:
            refused = UNSAFE_ARGUMENTS.get(keyword.arg or "")
            if refused is not None and not (isinstance(keyword.value, ast.Constant) and keyword.value.value != refused):
                self.problems.append(f"argument {keyword.arg} switches a protection off")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """``9 ** 9 ** 9`` keeps a computer busy for good."""
        if isinstance(node.op, ast.Pow | ast.LShift):
            power = node.right
            if not (isinstance(power, ast.Constant) and isinstance(power.value, int | float) and abs(power.value) < 64):
                self.problems.append("a power that is not a small number")
        self.generic_visit(node)

    def _is_module(self, node: ast.expr) -> bool:
        """Whether it is a name that an import binds."""
        return isinstance(node, ast.Name) and node.id not in self.bound and node.id in self.aliases

    def _is_path(self, node: ast.expr) -> bool:
        """Whether it is ``pathlib.Path(...)``."""
        if not isinstance(node, ast.Call) or node.keywords:
            return False
        name = ast.unparse(node.func)
        root, _, rest = name.partition(".")
        return ".".join(part for part in (self.aliases.get(root, root), rest) if part) == "pathlib.Path"

    def _known(self, name: str) -> bool:
        if name.startswith("scripts."):
            return any(name == m or name.startswith(f"{m}.") for m in self.own_modules)
        return is_allowed(name)

    def _judge_attributes(self, attributes: list[str]) -> None:
        for name in attributes:
            if name.startswith("_") or name in sys.stdlib_module_names - METHODS:
                self.problems.append(f"attribute {name!r} leads into a module or Python's internals")


def _chain(node: ast.Attribute) -> tuple[ast.expr, list[str]]:
    """Root and attribute names of ``root.a.b.c``."""
    names: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        names.append(current.attr)
        current = current.value
    return current, names[::-1]
