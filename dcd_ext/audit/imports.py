"""Judge the ``$import`` values of a config, which bind names for all expressions, the way MONAI binds them."""

from __future__ import annotations

import ast
import builtins
import sys

from dcd_ext.audit.names import is_allowed, is_allowed_import

__all__ = ["DEFAULT_ALIASES", "import_aliases", "import_problems", "parse_import"]

# MONAI puts these into the globals of each expression itself
DEFAULT_ALIASES = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
_PATH = "pathlib.Path"


def parse_import(text: str) -> ast.Import | ast.ImportFrom | None:
    """The import statement that ``text`` (without ``$``) consists of, or None."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[0] if len(body) == 1 and isinstance(body[0], ast.Import | ast.ImportFrom) else None


def import_aliases(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name an import in a config binds -> dotted name it stands for.

    MONAI reads the first name of a statement only, and ``import a.b`` binds ``a.b``, which no expression can write.
    """
    alias = node.names[0]
    name = alias.asname or alias.name
    if isinstance(node, ast.ImportFrom):
        return {name: f"{'.' * node.level}{node.module or ''}.{alias.name}"}
    return {name: alias.name} if name.isidentifier() else {}


def import_problems(node: ast.Import | ast.ImportFrom, own_modules: frozenset[str]) -> list[str]:
    """What is wrong with an import statement of a config.

    Args:
        node: the statement.
        own_modules: modules below the bundle's ``scripts``.
    """
    problems = []
    if len(node.names) > 1:
        problems.append("import of several names, of which MONAI reads the first")
    if isinstance(node, ast.ImportFrom):
        module = f"{'.' * node.level}{node.module or ''}"
        if not is_allowed_import(module, own_modules):
            return [*problems, f"import of {module}, which is not on the allow-list"]
        names = [f"{module}.{alias.name}" for alias in node.names]
        if not module.startswith("scripts."):
            refused = [n for n in names if not (is_allowed(n) or is_allowed_import(n, own_modules) or n == _PATH)]
            problems += [f"import of {name}, which is not on the allow-list" for name in refused]
    else:
        refused = [alias.name for alias in node.names if not is_allowed_import(alias.name, own_modules)]
        problems += [f"import of {name}, which is not on the allow-list" for name in refused]
    for name, meaning in import_aliases(node).items():
        problems += _alias_problems(name, meaning)
    return problems


def _alias_problems(name: str, meaning: str) -> list[str]:
    """``import os as glob`` would make the next reader of the config believe it, and so would ``Compose as eval``.

    Where the config with the import is never loaded, the name keeps its other meaning.
    """
    if name == meaning:
        return []
    taken = name in dir(builtins) or name in sys.stdlib_module_names or name.startswith("_")
    if taken or DEFAULT_ALIASES.get(name, meaning) != meaning:
        return [f"import of {meaning} under the name of {name}, which is not on the allow-list"]
    return []
