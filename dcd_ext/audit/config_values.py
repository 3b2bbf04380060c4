"""Judge one value of a config by its key and content."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dcd_ext.audit.arguments import argument_name, argument_problem, literal_problem
from dcd_ext.audit.expressions import Names, expression_problems
from dcd_ext.audit.large_files import is_large_files
from dcd_ext.audit.names import is_careful, target_problem
from dcd_ext.audit.references import is_outside, key_problem, macro_file

__all__ = ["ConfigRules", "Value", "is_description"]

_METADATA = re.compile(r"configs/metadata\.json|models/[^/]+/extra/metadata\.json")
_MAX_TEXT = 10_000
_MODES = ("default", "callable", "partial")


class Value(NamedTuple):
    """A value in a config.

    Attributes:
        file: the config.
        key: id in it (``a::b::0``).
        value: what json or yaml made of it.
    """

    file: str
    key: str
    value: Any


class ConfigRules:
    """What holds for all values of a bundle.

    Args:
        names: what names in expressions mean.
        files: the configs that are audited; macros may copy from these.
        moving: configs with relative references or macros, whose keys MONAI writes into expressions and paths.
        description_used: whether a config refers to the metadata or the downloads, whose texts are else for readers.
    """

    def __init__(
        self, names: Names, files: frozenset[str], moving: frozenset[str], description_used: bool = False
    ) -> None:
        self._names, self._files, self._moving, self._description_used = names, files, moving, description_used

    def problems(self, item: Value) -> list[str]:
        """What is wrong with one value, one line per problem."""
        try:
            return self._problems(item)
        except Exception as e:  # whatever a made-up value does to the audit, it does not end it
            return [f"cannot be judged: {type(e).__name__}"]

    def _problems(self, item: Value) -> list[str]:
        problems = self._container_problems(item)
        if isinstance(item.value, bytes | set | tuple):
            problems.append(f"{type(item.value).__name__}, a type that configs do not need")
        name = argument_name(item.key)
        last = item.key.replace("#", "::").rpartition("::")[2].lstrip("+~")
        if last == "_target_":
            target = target_problem(item.value, self._names.own_modules)
            return problems + ([target] if target else [])
        if last == "_mode_" and item.value not in _MODES:
            problems.append(f"mode {item.value!r} starts a debugger")
        # the addresses of downloads are judged with their sums
        if not (isinstance(item.value, list) or (name == "url" and is_large_files(item.file))):
            problem = argument_problem(name, item.value)
            problems += [problem] if problem else []
        return problems + self._text_problems(item, name) if isinstance(item.value, str) else problems

    def _container_problems(self, item: Value) -> list[str]:
        """Keys of a dictionary, and a class that must not be handed around."""
        if not isinstance(item.value, Mapping):
            return []
        problems = []
        for key in item.value:
            problem = key_problem(key, _is_metadata(item.file) and item.file not in self._moving, bool(self._moving))
            problems += [f"{str(key)[:60]!r}: {problem}"] if problem else []
            problems += self._override_problems(str(key), item.value[key])
        target, mode = item.value.get("_target_"), item.value.get("_mode_", "default")
        if mode != "default" and (not isinstance(target, str) or is_careful(target)):
            problems.append(f"{target} with mode {mode!r}: its arguments cannot be judged")
        return problems

    def _override_problems(self, key: str, value: Any) -> list[str]:
        """``a#_mode_`` and ``a#_target_`` in one config complete a component of another one."""
        _, separator, last = key.replace("#", "::").rpartition("::")
        if separator and last == "_mode_" and value != "default":
            return [f"{key}: the component that gets mode {value!r} cannot be judged"]
        if separator and last == "_target_" and isinstance(value, str) and is_careful(value):
            return [f"{key}: the arguments that {value} gets cannot be judged"]
        return []

    def _text_problems(self, item: Value, name: str) -> list[str]:
        text = item.value.strip()
        if len(text) > _MAX_TEXT:
            return [f"oversized text: {len(text)} characters, more than {_MAX_TEXT}"]
        if text.startswith("$"):
            return expression_problems(item.key, text, self._names)
        problems = []
        if text.startswith("%"):
            problems += self._macro_problems(item.key, text)
        module = self._names.module_keys.problem(item.key, text)
        problems += [module] if module else []
        # addresses and paths in the metadata are for readers
        exempt = is_description(item.file) and not self._description_used
        literal = None if exempt else literal_problem(name, text)
        return problems + ([literal] if literal else [])

    def _macro_problems(self, key: str, text: str) -> list[str]:
        """A macro may copy from a file; that file has to be one of the bundle's, which are audited, too."""
        file, wanted = macro_file(key, text)
        if file and (is_outside(file) or posixpath.normpath(file) not in self._files):
            return [f"macro reads {file}, which lies outside the bundle or is no config of it"]
        if self._names.module_keys.holds(wanted):
            return [f"macro copies {wanted or 'everything'}, which is, or holds, an import"]
        return []


def _is_metadata(file: str) -> bool:
    """The bundle's description, and its copy that TorchScript archives carry."""
    return _METADATA.fullmatch(file) is not None


def is_description(file: str) -> bool:
    """Whether a file describes the bundle, so that addresses and paths in it are for readers."""
    return _is_metadata(file) or is_large_files(file)
