"""Judge config files (JSON, YAML) as data: every ``_target_``, every ``$`` expression, every macro."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from dcd_ext.errors import UserError
from dcd_ext.share.allowed import UNSAFE_ARGUMENTS
from dcd_ext.share.audit_expressions import expression_problems, import_aliases, parse_import
from dcd_ext.share.findings import Finding
from dcd_ext.share.names import target_problem

__all__ = ["SUFFIXES", "config_findings", "load_config"]

SUFFIXES = (".json", ".yaml", ".yml")
_MAX_BYTES, _MAX_VALUES, _MAX_DEPTH = 4 * 2**20, 200_000, 100


class _Duplicate(ValueError):
    """A key that comes twice in one JSON object."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise _Duplicate(key)
        seen[key] = value
    return seen


def load_config(file: str, content: bytes) -> Any:
    """Parse a config file as plain data.

    Args:
        file: its name; the suffix decides the format.
        content: its bytes.

    Raises:
        UserError: if it cannot be parsed, is too large, or has a key twice (the reader would see one value, MONAI
            another).
    """
    if len(content) > _MAX_BYTES:
        raise UserError("oversized config", file, f"at most {_MAX_BYTES} bytes", len(content), "read it yourself")
    try:
        text = content.decode("utf-8")
        if file.endswith(".json"):
            return json.loads(text, object_pairs_hook=_no_duplicates)
        import yaml

        return yaml.safe_load(text)
    except _Duplicate as e:
        raise UserError("key given twice", file, "each key once", f"{e} twice", "remove one of them") from e
    except Exception as e:  # a damaged file may make a parser fail in any way
        raise UserError("config cannot be read", file, "JSON or YAML in UTF-8", type(e).__name__, "correct it") from e


def walk(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value of a nested config with its id (``a::b::0``), containers included.

    Raises:
        UserError: if it is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise UserError("config nested too deeply", key, f"at most {_MAX_DEPTH} levels", "more", "read it yourself")
    yield key, value
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        yield from walk(item, f"{key}::{name}" if key else str(name), depth + 1)


def config_findings(configs: Mapping[str, Any], own_modules: frozenset[str]) -> list[Finding]:
    """Judge all configs of a bundle together: an import in one is a name in the other once they are merged.

    Args:
        configs: file -> parsed content.
        own_modules: modules below the bundle's ``scripts``.
    """
    findings: list[Finding] = []
    values: list[tuple[str, str, Any]] = []
    for file, config in configs.items():
        try:
            for key, value in walk(config):
                values.append((file, key, value))
                if len(values) > _MAX_VALUES:
                    raise UserError("oversized config", file, f"at most {_MAX_VALUES} values", "more", "read it")
        except UserError as e:
            findings.append(Finding(file, "", str(e)))
    aliases, doubles = _collect_imports(values)
    findings += doubles
    for file, key, value in values:
        findings += [Finding(file, key, what) for what in _problems(key, value, aliases, own_modules)]
    return findings


def _collect_imports(values: list[tuple[str, str, Any]]) -> tuple[dict[str, str], list[Finding]]:
    """Names bound by all ``$import`` values; two meanings of one name are a finding."""
    aliases: dict[str, str] = {}
    findings = []
    for file, key, value in values:
        node = parse_import(value[1:]) if isinstance(value, str) and value.startswith("$") else None
        for name, meaning in import_aliases(node).items() if node else ():
            if aliases.setdefault(name, meaning) != meaning:
                findings.append(Finding(file, key, f"{name} stands for {aliases[name]} and for {meaning}"))
    return aliases, findings


def _problems(key: str, value: Any, aliases: Mapping[str, str], own_modules: frozenset[str]) -> list[str]:
    """What is wrong with one value."""
    name = key.replace("#", "::").rpartition("::")[2].lstrip("+")
    problems: list[str] = []
    if name == "_target_":
        target = target_problem(value, own_modules)
        return [target] if target else []
    if name == "_mode_" and value not in ("default", "callable", "partial"):
        problems.append(f"mode {value!r} starts a debugger")
    if name in UNSAFE_ARGUMENTS and value == UNSAFE_ARGUMENTS[name] and value is not None:
        problems.append(f"{name} switches a protection off")
    if not isinstance(value, str):
        return problems
    text = value.strip()
    if text.startswith("$"):
        problems += expression_problems(text, aliases, own_modules)
    elif text.startswith("%"):
        problems += _macro_problems(text)
    return problems


def _macro_problems(text: str) -> list[str]:
    """A macro may copy from a file; that file has to be one of the bundle's, which are audited, too."""
    file = text[1:].partition("::")[0].partition("#")[0]
    if not file.endswith(SUFFIXES):
        return []
    outside = posixpath.isabs(file) or ".." in file.split("/") or "\\" in file or ":" in file
    return [f"macro reads {file}, which lies outside the bundle"] if outside else []
