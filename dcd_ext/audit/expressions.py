"""Judge the ``$`` expressions of a config by their syntax tree: MONAI hands them to ``eval``."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field

from dcd_ext.audit.allowed import BUILTINS
from dcd_ext.audit.arguments import literal_problem
from dcd_ext.audit.attributes import ChainRules, chain
from dcd_ext.audit.calls import call_problems, is_benchmark_switch
from dcd_ext.audit.imports import DEFAULT_ALIASES, import_problems, parse_import
from dcd_ext.audit.names import is_careful
from dcd_ext.audit.references import LOCAL_REFS, ModuleKeys, evaluated_text

__all__ = ["Names", "expression_problems"]

# the longest of ours has 240 characters; what is longer is not read by people either
MAX_LENGTH, MAX_NODES = 500, 200
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword),
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Lambda, ast.arguments, ast.arg, ast.Starred),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.comprehension, ast.JoinedStr, ast.FormattedValue),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


@dataclass(frozen=True)
class Names:
    """What the names in a bundle's expressions mean.

    Attributes:
        aliases: name -> dotted name, of the bundle's imports.
        own_modules: modules below the bundle's ``scripts``.
        module_keys: ids whose value is an imported module.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    own_modules: frozenset[str] = frozenset()
    module_keys: ModuleKeys = field(default_factory=lambda: ModuleKeys(()))


def expression_problems(key: str, text: str, names: Names) -> list[str]:
    """What is wrong with one expression.

    Args:
        key: id of the config value; relative references depend on it.
        text: the config value, ``$`` included.
        names: what the names in it mean.

    Returns:
        One line per problem; empty if everything in it is on the allow-list.
    """
    if len(text) > MAX_LENGTH:
        return [f"oversized expression: {len(text)} characters, more than {MAX_LENGTH}"]
    statement = parse_import(text[1:])
    if statement is not None:
        return import_problems(statement, names.own_modules)
    if "%::" in text.replace("#", "::"):
        return ["a relative macro inside of an expression"]
    source = evaluated_text(key, text)
    try:
        tree = ast.parse((source or "").strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        return [f"not an expression: {type(e).__name__}"]
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        return [f"oversized expression: more than {MAX_NODES} parts"]
    judge = _Judge(names)
    judge.visit(tree)
    module = names.module_keys.problem(key, text)
    return [*judge.problems, module] if module and module not in judge.problems else judge.problems


class _Judge(ast.NodeVisitor):
    """Walks an expression and collects what is not allowed in it."""

    def __init__(self, names: Names) -> None:
        self.module_keys = names.module_keys
        self.aliases = {**names.aliases, **DEFAULT_ALIASES}
        self.bound: set[str] = set()
        self.problems: list[str] = []
        self.rules = ChainRules(self.aliases, self.bound, names.own_modules)

    def visit(self, node: ast.AST) -> None:
        """Refuse syntax that no config needs: assignments, ``await``, ``yield``, ``for os.environ[x] in y``."""
        stores = isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)
        if not isinstance(node, _NODES) or (stores and isinstance(node, ast.Attribute | ast.Subscript)):
            self.problems.append(f"{type(node).__name__} {'assigned' if stores else 'in an expression'}")
            return
        super().visit(node)

    def visit_Expression(self, node: ast.Expression) -> None:
        """Names bound by lambdas and comprehensions are known before their bodies are read.

        Outside of its lambda such a name has its other meaning, so it may have none.
        """
        for part in ast.walk(node):
            if isinstance(part, ast.arg):
                self.bound.add(part.arg)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                self.bound.add(part.id)
        taken = {*self.aliases, *dir(builtins)}
        shadowed = sorted(name for name in self.bound if name in taken or name.startswith("__"))
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
        elif not self.rules.known(meaning) or is_careful(meaning):
            self.problems.append(f"{meaning!r} as a value")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """References, environment variables, items."""
        if isinstance(node.value, ast.Name) and node.value.id == LOCAL_REFS:
            reference = node.slice.value if isinstance(node.slice, ast.Constant) else None
            # an expression may also write __local_refs['x'] itself
            if not isinstance(reference, str):
                self.problems.append("computed reference")
            elif self.module_keys.holds(reference):
                self.problems.append(f"@{reference} is, or holds, an imported module")
            return
        if self.rules.dotted(node.value) != "os.environ":
            self.visit(node.value)
        self.visit(node.slice)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """An attribute that is not called: data of a value, or a name of the list."""
        self._judge_chain(node, called=False)

    def visit_Call(self, node: ast.Call) -> None:
        """Only names, allowed attributes and references are called."""
        if is_benchmark_switch(node, self.rules):
            return
        name = self.rules.dotted(node.func)
        if name == "pathlib.Path":
            self.problems.append("a path as a value: what is done with it cannot be told")
        elif isinstance(node.func, ast.Attribute):
            self._judge_chain(node.func, called=True)
        elif isinstance(node.func, ast.Name):
            if not (name and self.rules.known(name)):
                self.visit(node.func)
        elif _is_reference(node.func):
            self.visit(node.func)
        else:
            self.problems.append(f"call of {ast.unparse(node.func)[:60]!r}: what it calls cannot be told")
        self.problems += call_problems(node, name)
        wrapped = isinstance(node.func, ast.Name) and node.func.id == "str" and len(node.args) == 1
        for argument in [*node.args, *(k.value for k in node.keywords)]:
            # str(Path(...)) is text
            inner = argument.args if wrapped and self.rules.is_path(argument) else [argument]  # type: ignore[attr-defined]
            for part in inner:
                self.visit(part)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """``9 ** 9 ** 9`` keeps a computer busy for good; a text added to another is no absolute path."""
        if isinstance(node.op, ast.Pow | ast.LShift):
            power = node.right
            if not (isinstance(power, ast.Constant) and isinstance(power.value, int | float) and abs(power.value) < 64):
                self.problems.append("a power that is not a small number")
        self.visit(node.left)
        added = isinstance(node.op, ast.Add) and not isinstance(node.left, ast.Constant)
        if added and isinstance(node.right, ast.Constant):
            self._judge_literal(node.right, appended=True)
        else:
            self.visit(node.right)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """What follows the first part of an f-string is no absolute path."""
        for i, part in enumerate(node.values):
            if isinstance(part, ast.Constant):
                self._judge_literal(part, appended=i > 0)
            else:
                self.visit(part)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Texts may be addresses and paths."""
        self._judge_literal(node, appended=False)

    def _judge_literal(self, node: ast.Constant, appended: bool) -> None:
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        problem = literal_problem("", text, appended) if isinstance(text, str) else None
        if problem:
            self.problems.append(problem)

    def _judge_chain(self, node: ast.Attribute, called: bool) -> None:
        self.problems += self.rules.problems(node, called)
        root, _ = chain(node)
        if self.rules.is_path(root):
            for argument in root.args:  # type: ignore[attr-defined]
                self.visit(argument)
        elif self.rules.dotted(node) is None:
            self.visit(root)


def _is_reference(node: ast.expr) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == LOCAL_REFS
