"""Judge Python files in a bundle by their syntax tree: what they import, what they call, what runs at import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from dcd_ext.audit.allowed import BUILTINS, MODULES, words
from dcd_ext.audit.names import is_allowed, is_allowed_import

__all__ = ["python_problems"]

_BUILTINS = BUILTINS | words("property staticmethod classmethod super object type ValueError RuntimeError")
_DENIED = words("eval exec compile __import__ open getattr setattr delattr globals locals vars input")
_INTERNALS = words(
    "__globals__ __builtins__ __subclasses__ __code__ __reduce__ __reduce_ex__ __bases__ __mro__ __loader__"
)
# third-party code that a network or transform may use freely; what unpickles or runs programs is refused by name
_THIRD_PARTY = words("monai torch ignite numpy dcd_ext dynamic_network_architectures scipy skimage nibabel")
_DENIED_CALLS = words("load save hub load_library run_cmd system popen run download_url ConfigParser")
_HARMLESS = (ast.Import, ast.ImportFrom, ast.Pass, ast.Global, ast.Nonlocal)


def python_problems(text: str, own_modules: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Everything in a Python file that is not on the allow-list, as ``(line, what)``.

    Args:
        text: the source; it is parsed, never run.
        own_modules: modules below the bundle's ``scripts``.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        yield "", f"not Python: {type(e).__name__}"
        return
    own = next((node for node in tree.body if not _is_plain(node)), None)
    if own is not None:
        yield f"line {own.lineno}", "code of its own: read it"
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            aliases.update(_bound(node))
            yield from ((f"line {node.lineno}", what) for what in _import_problems(node, own_modules))
    for node in ast.walk(tree):
        what = _use_problem(node, aliases)
        if what:
            yield f"line {getattr(node, 'lineno', 0)}", what
    for statement in _at_import(tree.body):
        yield f"line {statement.lineno}", f"runs at import: {ast.unparse(statement)[:80]}"


def _is_plain(node: ast.stmt) -> bool:
    """A docstring, or an import from the bundle's own files: no list of names could tell what other code does."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").split(".")[0] == "scripts")


def _bound(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name an import statement binds -> dotted name it stands for."""
    if isinstance(node, ast.Import):
        return {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
    return {a.asname or a.name: f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names}


def _import_problems(node: ast.Import | ast.ImportFrom, own_modules: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.level:
        return
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    harmless = {"__future__", "abc", "dataclasses", "enum", "numbers", "contextlib", "operator", "string"}
    for module in modules:
        first = module.split(".")[0]
        if not (first in _THIRD_PARTY | harmless or is_allowed_import(module, own_modules)):
            yield f"import of {module}, which is not on the allow-list"
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in sys.stdlib_module_names - harmless:
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            if node.module not in ("typing", "collections.abc") and not is_allowed(name) and name != "pathlib.Path":
                yield f"import of {name}, which is not on the allow-list"


def _use_problem(node: ast.AST, aliases: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name) and node.id in _DENIED:
        return f"{node.id} is not on the allow-list"
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("optional_import"):
        return _optional_import_problem(node)
    if not isinstance(node, ast.Attribute):
        return None
    if node.attr in _INTERNALS:
        return f"{node.attr} leads into Python's internals"
    names = ast.unparse(node).split(".")
    meaning = aliases.get(names[0])
    if meaning is None:
        return None
    dotted = ".".join([meaning, *names[1:]])
    first = dotted.split(".")[0]
    if first in sys.stdlib_module_names and first in MODULES - {"typing", "collections", "logging", "warnings"}:
        known = any(is_allowed(".".join(dotted.split(".")[:end])) for end in range(2, dotted.count(".") + 2))
        is_prefix = dotted in ("os.path",) or dotted.startswith("pathlib.Path")
        return None if known or is_prefix else f"{dotted} is not on the allow-list"
    if first in _THIRD_PARTY and (set(dotted.split(".")[1:]) & (_DENIED_CALLS | {"os", "sys", "subprocess", "pickle"})):
        return f"{dotted} reads or writes files, or leads into a module"
    return None


def _optional_import_problem(node: ast.Call) -> str | None:
    """MONAI's ``optional_import("os", name="system")`` is an import in disguise."""
    module = node.args[0] if node.args else None
    first = module.value.split(".")[0] if isinstance(module, ast.Constant) and isinstance(module.value, str) else ""
    if not first or first in sys.stdlib_module_names:
        return f"{ast.unparse(node)[:80]}: an import that is not on the allow-list"
    return None


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module or class body that do more than define."""
    for node in body:
        if isinstance(node, _HARMLESS):
            continue
        if isinstance(node, ast.ClassDef):
            yield from _at_import(node.body)
            if any(map(_computes, [*node.bases, *node.decorator_list, *(k.value for k in node.keywords)])):
                yield node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.decorator_list]
            if any(map(_computes, defaults)):
                yield node
        elif isinstance(node, ast.If) and _is_guard(node.test):
            yield from _at_import([] if "__main__" in ast.unparse(node.test) else node.body)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr):
            if node.value is not None and _computes(node.value):
                yield node
        else:
            yield node


def _computes(value: ast.expr) -> bool:
    """Whether evaluating it calls something that is not known to be harmless."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            known = name in _BUILTINS or name.endswith("optional_import") or is_allowed(name) or name == "dataclass"
            if not known:
                return True
    return False


def _is_guard(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
