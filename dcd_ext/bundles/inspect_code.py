"""Names used by Python code and ``$`` expressions, from their syntax trees: nothing is executed or imported."""

import ast
import builtins
import io
import re
import sys
import tokenize
import warnings
from collections import Counter

# packages whose names are only counted
FAMILIAR = frozenset({"monai", "torch", "ignite", "numpy", "dcd_ext", "dynamic_network_architectures"})
# builtins that execute text, import, open files or access attributes by name
_SENSITIVE = frozenset({"__import__", "breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals"})
_SENSITIVE |= {"input", "locals", "open", "setattr", "vars"}
SENSITIVE, OTHER = "sensitive names", "other modules"
_BUILTINS = frozenset(dir(builtins))
_REFERENCE, _REFERENCE_NAME = re.compile(r"@\w*(?:(?:::|#)\w*)*"), "_reference_"


def _parse(source: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like
        return ast.parse(source)


def names_used(expression: str) -> Counter[str]:
    """How often code uses each dotted name: called, passed on or read, so that ``map(os.system, x)`` hides nothing.

    Returns:
        Dotted names; those of local variables, of references (``@x``) and of results without what they start from
        (``.parameters``); whole import statements.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: if it is no Python.
    """
    return _names(_parse(_REFERENCE.sub(_REFERENCE_NAME, expression.strip())))


def _names(tree: ast.Module) -> Counter[str]:
    nodes = list(ast.walk(tree))
    local = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in nodes if isinstance(node, ast.arg)} | {_REFERENCE_NAME}
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    names: Counter[str] = Counter()
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names[ast.unparse(node)] += 1
        elif isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in inner:
            names[_dotted(node, local)] += 1
        elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            computed = not isinstance(node.func, ast.Name) or node.func.id == _REFERENCE_NAME
            names["(a value)()"] += computed
    return +Counter({name: count for name, count in names.items() if name})


def _dotted(node: ast.expr, local: set[str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    root = node.id if isinstance(node, ast.Name) and node.id not in local else ""
    return ".".join([root, *reversed(parts)])


def familiar(name: str) -> bool:
    """Whether a dotted name is one of a familiar package, and not another module reached through it (torch.os)."""
    root, *rest = name.split(".")
    return root in FAMILIAR and not sys.stdlib_module_names.intersection(rest)


def kind_of_name(name: str) -> str:
    """Under which heading a name of :func:`names_used` is listed."""
    root = name.partition(".")[0]
    if name in _SENSITIVE or name.startswith("(") or "__" in name:
        return SENSITIVE
    if not root or name in _BUILTINS:
        return "builtins and methods"
    return root if familiar(name) else OTHER


def summarize_python(source: bytes) -> str:
    """One line on a Python file: its imports, its numbers of functions and classes, the sensitive builtins it uses.

    Raises what :func:`names_used` does.
    """
    encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
    tree = _parse(source)
    nodes = list(ast.walk(tree))
    imports = {alias.name.partition(".")[0] for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            imports.add("." * node.level + (node.module or "").partition(".")[0])
    functions = sum(isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in nodes)
    classes = sum(isinstance(n, ast.ClassDef) for n in nodes)
    text = f"imports {', '.join(sorted(imports)) or 'nothing'}; {functions} functions, {classes} classes"
    sensitive = sorted(_SENSITIVE.intersection(_names(tree)))
    text += f"; uses {', '.join(sensitive)}" if sensitive else ""
    return text + ("" if encoding.startswith(("utf-8", "ascii")) else f"; in the encoding {encoding}")
