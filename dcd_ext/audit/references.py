"""The text that MONAI evaluates is not the text that a config holds; this module makes the one out of the other.

MONAI (``monai/bundle/config_parser.py``, ``reference_resolver.py``) replaces ``#`` by ``::`` everywhere, relative
references by absolute ones, and references by ``__local_refs['id']``, inside of strings and comments, too. An audit
that parsed anything else would judge another program.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

__all__ = [
    *("LOCAL_REFS", "SUFFIXES", "ModuleKeys", "absolute", "evaluated_text", "is_relative", "key_problem", "macro_file"),
    *("is_outside", "normal_id", "reference_ids", "relative_tails"),
]

SUFFIXES = (".json", ".yaml", ".yml")
LOCAL_REFS = "__local_refs"
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_RELATIVE = re.compile(r"(?:@|%)(?:::)+")
_RELATIVE_TAIL = re.compile(r"[@%](?:::)+(\w*(?:::\w*)*)")
# the path of a macro is matched greedily: "a::b/../../x.json::run" names one file
_MACRO_FILE = re.compile(r"(.*\.(json|yaml|yml)(?=(?:::.*)|$))", re.IGNORECASE)
_PLAIN_KEY = re.compile(r"[+~]?\w+(?:(?:::|#)\w+)*")
# what a key could smuggle into an expression
_CODE_IN_KEY = re.compile(r"[()\[\]{}'\"@$%=,;\\`\x00-\x1f]")
# the metadata describe labels and packages in words; they may hold all but code
_TEXT_KEY = re.compile(r"[\w .:/+,()&-]*")


def normal_id(key: str) -> str:
    """A key as MONAI's resolver knows it: ``#`` is ``::``, and a leading ``+`` only asks for merging."""
    return key.replace("#", "::").lstrip("+~")


def is_relative(text: str) -> bool:
    """Whether it holds a relative reference or macro, into which MONAI writes the keys above it."""
    return _RELATIVE.search(text.replace("#", "::")) is not None


def absolute(key: str, text: str) -> str | None:
    """Replace relative references by absolute ones, as ``ConfigParser.resolve_relative_ids`` does.

    Args:
        key: id of the value.
        text: the value.

    Returns:
        The text, or None if a reference leads above the root.
    """
    text = text.replace("#", "::")
    current = normal_id(key).split("::")
    for prefix in sorted(set(_RELATIVE.findall(text)), reverse=True):
        levels = prefix.count("::")
        if levels > len(current):
            return None
        above = "::".join(current[:-levels])
        text = text.replace(prefix, prefix[0] + (f"{above}::" if above else ""))
    return text


def evaluated_text(key: str, value: str) -> str | None:
    """What MONAI hands to ``eval`` for a ``$`` expression, or None if it would raise an error."""
    text = absolute(key, value)
    if text is None:
        return None
    for reference in sorted(_REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(reference, f"{LOCAL_REFS}['{reference[1:]}']")
    return text[1:] if text.startswith("$") else text


def reference_ids(key: str, value: str) -> list[str]:
    """Ids that a value refers to: those in an expression, or the one that the whole text consists of."""
    text = absolute(key, value) or ""
    found = _REFERENCE.findall(text)
    return [item[1:] for item in found if text.startswith("$") or text == item]


def relative_tails(value: str) -> list[str]:
    """What relative references name below the place, unknown once a macro copies them, that they start from."""
    return _RELATIVE_TAIL.findall(value.replace("#", "::"))


def macro_file(key: str, value: str) -> tuple[str, str]:
    """File and id that a ``%`` macro names; the file is "" if it means the config itself."""
    text = (absolute(key, value) or value.replace("#", "::"))[1:]
    found = _MACRO_FILE.findall(text)
    if not found:
        return "", text
    path = found[0][0]
    return path, text.rsplit(path, 1)[1].removeprefix("::")


def key_problem(name: object, metadata: bool, relative: bool) -> str | None:
    """What is wrong with a key.

    Args:
        name: one key, not the whole id; YAML knows other types than text.
        metadata: whether it is one of ``metadata.json``, which holds text and no relative reference.
        relative: whether the bundle uses relative references, which write keys into expressions and paths.
    """
    text = str(name)
    if _PLAIN_KEY.fullmatch(text) or (metadata and _TEXT_KEY.fullmatch(text)):
        return None
    if _CODE_IN_KEY.search(text):
        return "a key with characters of code: MONAI writes keys into expressions"
    return (
        "a key that is no plain name: a relative reference writes it into an expression or path" if relative else None
    )


class ModuleKeys:
    """Ids whose value is an imported module: whoever refers to one holds the whole module."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids: set[str] = set()
        for key in ids:
            parts = [_counted(part) for part in normal_id(key).split("::")]
            # a reference to a list or dictionary holds what is in it
            self._ids.update("::".join(parts[:end]) for end in range(len(parts) + 1))

    def holds(self, reference: str) -> bool:
        """Whether an id, or an id relative to anything, means a module or what contains one."""
        wanted = "::".join(_counted(part) for part in normal_id(reference).split("::"))
        return wanted in self._ids

    def problem(self, key: str, value: str) -> str | None:
        """What is wrong with the references of one value, an expression or not."""
        held = [r for r in reference_ids(key, value) if self.holds(r)]
        held += [tail for tail in relative_tails(value) if self.holds_below(tail)]
        return f"@{held[0]} is, or holds, an imported module" if held else None

    def holds_below(self, reference: str) -> bool:
        """The same for the tail of a relative reference, whose beginning depends on where a macro copies it."""
        tail = "::".join(_counted(part) for part in normal_id(reference).split("::") if part)
        if not tail:
            return bool(self._ids)
        return any(known == tail or known.endswith(f"::{tail}") for known in self._ids if known)


def _counted(part: str) -> str:
    """Merged lists shift their indices, so all indices are alike."""
    return "0" if part.isdigit() else part


def is_outside(path: str) -> bool:
    """Whether a path leads, or might lead, out of the bundle."""
    return posixpath.isabs(path) or ".." in path.split("/") or any(c in path for c in "\\:~\n")
