"""Judge the arguments of a call in an expression."""

from __future__ import annotations

import ast
import re

from dcd_ext.audit.allowed import SIGNATURES
from dcd_ext.audit.arguments import COMPUTED, argument_problem
from dcd_ext.audit.attributes import ChainRules
from dcd_ext.audit.names import is_careful

__all__ = ["call_problems", "is_benchmark_switch"]


# "{0.attribute}" and "{0[item]}", but not "{:.2f}"
_FIELD_THAT_READS = re.compile(r"\{[^{}:!]*[.\[]")


def call_problems(node: ast.Call, name: str | None) -> list[str]:
    """What is wrong with the arguments of a call.

    Args:
        node: the call.
        name: dotted name of what it calls, None if that is a value.
    """
    problems = []
    for keyword in node.keywords:
        if keyword.arg is None:
            problems.append("** in a call: which arguments it gives cannot be told")
        elif keyword.arg == "file":
            problems.append("argument file: print() calls write() of what it is given")
        else:
            problem = argument_problem(keyword.arg, _literal(keyword.value))
            problems += [problem] if problem else []
    if isinstance(node.func, ast.Attribute):
        problems += _method_problems(node.func, node)
    if name is not None and is_careful(name):
        problems += _signature_problems(node, name)
    return problems


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return COMPUTED


def _signature_problems(node: ast.Call, name: str) -> list[str]:
    """Functions with a signature of their own, and classes that are built with judged keywords only."""
    positional, named = SIGNATURES.get(name, (0, None))
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    if starred or len(node.args) > positional:
        return [f"positional arguments of {name}, which cannot be judged"]
    given = {keyword.arg or "**" for keyword in node.keywords}
    refused = sorted(given - named) if named is not None else []
    problems = [f"argument {argument} of {name}, which is not on the allow-list" for argument in refused]
    if name == "torch.load" and "weights_only" not in given:
        problems.append("torch.load without weights_only=True")
    return problems


def _method_problems(function: ast.Attribute, node: ast.Call) -> list[str]:
    """Methods of text whose namesakes do harm: ``Path.replace``, ``DataFrame.eval``; fields that read attributes."""
    method = function.attr
    if method == "replace" and (len(node.args) < 2 or any(isinstance(a, ast.Starred) for a in node.args)):
        return ["replace() with one argument moves a file"]
    if method == "eval" and (node.args or node.keywords):
        return ["eval() with arguments evaluates them"]
    if method == "format":
        text = function.value.value if isinstance(function.value, ast.Constant) else None
        if not isinstance(text, str) or _FIELD_THAT_READS.search(text):
            return ["format() of a text that is computed, or reads attributes"]
    return []


def is_benchmark_switch(node: ast.Call, rules: ChainRules) -> bool:
    """``setattr(torch.backends.cudnn, 'benchmark', True)``, which many bundles of the model zoo have."""
    if not (
        isinstance(node.func, ast.Name) and node.func.id == "setattr" and len(node.args) == 3 and not node.keywords
    ):
        return False
    target, name, value = node.args
    literal = isinstance(name, ast.Constant) and name.value in ("benchmark", "deterministic")
    switch = isinstance(value, ast.Constant) and isinstance(value.value, bool)
    return literal and switch and rules.dotted(target) == "torch.backends.cudnn"
