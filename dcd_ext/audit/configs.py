"""Judge config files (JSON, YAML) as data: every ``_target_``, every ``$`` expression, every macro."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dcd_ext.audit.config_values import ConfigRules, Value, is_description
from dcd_ext.audit.expressions import Names
from dcd_ext.audit.findings import Finding
from dcd_ext.audit.imports import import_aliases, parse_import
from dcd_ext.audit.references import ModuleKeys, is_relative
from dcd_ext.errors import UserError

__all__ = ["config_findings", "is_program", "load_config"]

# how a config gets at the texts of the metadata and of the list of downloads
_DESCRIPTION = re.compile(r"[@%].*(_meta_|metadata\.json|large_files)|@(?!(?:::|#)*\w)", re.IGNORECASE | re.DOTALL)
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
        if file.lower().endswith(".json"):
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


def is_program(config: Any) -> bool:
    """Whether anything in a config is called or evaluated; an endless one might be."""
    try:
        return any(
            (isinstance(value, Mapping) and any("_target_" in str(key) for key in value))
            or (isinstance(value, str) and value.strip()[:1] in ("$", "%"))
            for _, (_, value) in zip(range(_MAX_VALUES), walk(config), strict=False)
        )
    except UserError:
        return True


def config_findings(configs: Mapping[str, Any], own_modules: frozenset[str]) -> list[Finding]:
    """Judge all configs of a bundle together: an import in one is a name in the other once they are merged.

    Args:
        configs: file -> parsed content.
        own_modules: modules below the bundle's ``scripts``.
    """
    findings: list[Finding] = []
    values: list[Value] = []
    for file, config in configs.items():
        try:
            for key, value in walk(config):
                values.append(Value(file, key, value))
                if len(values) > _MAX_VALUES:
                    raise UserError("oversized config", file, f"at most {_MAX_VALUES} values", "more", "read it")
        except UserError as e:
            findings.append(Finding(file, "", str(e)))
    names, doubles = _collect_imports(values, own_modules)
    findings += doubles
    judge = _rules(values, names, frozenset(configs))
    for value in values:
        findings += [Finding(value.file, value.key, what) for what in judge.problems(value)]
    return findings


def _rules(values: list[Value], names: Names, files: frozenset[str]) -> ConfigRules:
    """What the texts of all configs together mean for each of them."""
    texts = [value for value in values if isinstance(value.value, str)]
    relative = {file for file, _, value in texts if is_relative(value)}
    # what a macro copies below the keys of its place may hold relative references
    macros = {file for file, _, value in texts if value.strip().startswith("%")} if relative else set()
    used = any(_DESCRIPTION.search(value) for file, _, value in texts if not is_description(file))
    return ConfigRules(names, files, frozenset(relative | macros), used)


def _collect_imports(values: list[Value], own_modules: frozenset[str]) -> tuple[Names, list[Finding]]:
    """Names bound by all ``$import`` values; two meanings of one name are a finding."""
    aliases: dict[str, str] = {}
    findings, keys = [], []
    for file, key, value in values:
        node = parse_import(value.strip()[1:]) if isinstance(value, str) and value.strip().startswith("$") else None
        if node is None:
            continue
        # the metadata are loaded below _meta_
        keys += [key, f"_meta_::{key}"]
        for name, meaning in import_aliases(node).items():
            if aliases.setdefault(name, meaning) != meaning:
                findings.append(Finding(file, key, f"{name} stands for {aliases[name]} and for {meaning}"))
    return Names(aliases, own_modules, ModuleKeys(keys)), findings
