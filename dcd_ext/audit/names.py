"""Decide whether a dotted name is on the allow-list, without importing anything.

``monai.data.utils.os.system`` is a valid name, too: modules are attributes of modules. So a name may only walk through
folders and files of its package, and what it ends in has to be a class that one of the allowed packages defines itself,
or a function on the list. Definitions are found in the text of the installed packages.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from dcd_ext.audit.allowed import (
    CAREFUL_CLASSES,
    CLASS_PACKAGES,
    DENIED_CLASSES,
    FUNCTIONS,
    MODULES,
    SIGNATURES,
    SUBMODULES,
)
from dcd_ext.errors import UserError

__all__ = ["is_allowed", "is_allowed_import", "is_careful", "is_class", "is_enum", "is_module", "target_problem"]

_CLASS = re.compile(r"^\s*class\s+([A-Z]\w*)", re.MULTILINE)
# Composed = ComposeDict = ComposeD
_ALIASES = re.compile(r"^((?:[A-Z]\w*\s*=\s*)+)[A-Z]\w*\s*$", re.MULTILINE)


@functools.cache
def _folder(package: str) -> Path:
    """Folder of an installed top-level package; it is found, not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "a package the audit reads is missing", package, "installed", "not found", f"pip install {package}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def is_module(name: str) -> bool:
    """Whether a dotted name of an installed package is a module, judged by its files."""
    first, *rest = name.split(".")
    path = _folder(first).joinpath(*rest)
    return (path / "__init__.py").is_file() or path.with_suffix(".py").is_file()


@functools.cache
def _classes(package: str) -> frozenset[str]:
    """Names of all classes that a package or module defines."""
    first, *rest = package.split(".")
    path = _folder(first).joinpath(*rest)
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    found: set[str] = set()
    for text in (file.read_text("utf-8", errors="replace") for file in files):
        found.update(_CLASS.findall(text))
        for aliases in _ALIASES.findall(text):
            found.update(part.strip() for part in aliases.split("=") if part.strip())
    return frozenset(name for name in found if not DENIED_CLASSES.match(name))


def is_class(name: str, package: str) -> bool:
    """Whether a bare name is a class that a package defines, and not a denied one."""
    return name in _classes(package)


def is_enum(name: str) -> bool:
    """Whether a dotted name is one of MONAI's enumerations, whose members are text."""
    module, _, last = name.rpartition(".")
    return module in ("monai.utils", "monai.utils.enums") and last in _classes("monai.utils.enums")


def is_careful(name: str) -> bool:
    """Whether a class or function is only allowed with arguments that are judged where it is called."""
    return name in SIGNATURES or CAREFUL_CLASSES.match(name.rpartition(".")[2]) is not None


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:i]) for i in range(1, len(parts) + 1))


def _is_class(name: str) -> bool:
    """Whether ``package.module.Class`` walks through files only and the class is one of an allowed package."""
    module, _, last = name.rpartition(".")
    package = next((p for p in CLASS_PACKAGES if module == p or module.startswith(f"{p}.")), None)
    return package is not None and last in _classes(package) and is_module(module)


def is_allowed(name: str) -> bool:
    """Whether the dotted name is allowed: a listed function or value, or a class of an allowed package."""
    return name in FUNCTIONS or (name.split(".")[0] in MODULES and (_is_class(name) or is_enum(name)))


def is_allowed_import(module: str, own_modules: frozenset[str] = frozenset()) -> bool:
    """Whether ``import module`` is allowed: a listed module, or a file below one.

    Args:
        module: dotted name.
        own_modules: modules the bundle itself has below ``scripts``; their text is audited, too.
    """
    if module.split(".")[0] == "scripts":
        return module in own_modules
    if module in MODULES | SUBMODULES:
        return True
    package = any(module == p or module.startswith(f"{p}.") for p in CLASS_PACKAGES)
    return package and _is_file(module)


def _is_file(module: str) -> bool:
    try:
        return is_module(module)
    except UserError:
        return False


def target_problem(target: object, own_modules: frozenset[str] = frozenset()) -> str | None:
    """What is wrong with a ``_target_``; None if it is allowed.

    A bare name is looked up by MONAI among all of its own modules, functions such as ``run_cmd`` included, so it has
    to be a class of the allowed packages.
    """
    if not isinstance(target, str) or not target.isascii() or target[:1] in "$@%":
        return f"computed target {str(target)[:80]!r}: what it calls cannot be told"
    if target in SIGNATURES:
        return f"target {target!r}: its arguments are judged only in an expression"
    if target.startswith("scripts."):
        module = target.rpartition(".")[0]
        return None if module in own_modules else f"{target}: the bundle has no such module"
    if "." in target:
        allowed = is_allowed(target)
    else:
        allowed = any(is_class(target, p) for p in CLASS_PACKAGES if p.startswith("monai."))
    return None if allowed else f"target {target!r} is not on the allow-list"
