"""Config entries that a user sets: text that means true or false becomes it, other kinds of values are refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from dcd_ext.bundles.sources import check_network
from dcd_ext.errors import UserError
from dcd_ext.readers import check_content

_BOOLEANS = {"true": True, "false": False}
_WHERE, _STEP = "command line or config file", "see docs/train.md"


def settle_options(parser: ConfigParser, files: Sequence[Path]) -> None:
    """Make the entries of a merged config what they say, before anything is built from them.

    A command line's ``False`` reaches the config as a boolean, ``false`` as text, and any text counts as true. Refused
    are values out of the range in ``schemas/options.json`` and, where a shipped config in ``files`` has a boolean or a
    number, text that is no expression.
    """
    config: Any = parser.config
    for id, value in _read_booleans({key: value for key, value in config.items() if key != "_meta_"}, config):
        # the resolver, which is at work, keeps each entry a second time
        if (item := parser.ref_resolver.items.get(id)) is not None:
            item.update_config(value)
        parser.ref_resolver.resolved_content.pop(id, None)
    fixed = {key: value for key, value in config.items() if key != "_meta_" and not _has_expression(value)}
    check_content(fixed, "options", _WHERE, "option", _STEP)
    if {"strides", "features", "n_blocks", "patch_size"} <= fixed.keys():
        check_network(fixed, _WHERE)
    texts = {path: value for path, value in _leaves(config) if isinstance(value, str) and not _has_expression(value)}
    for file in files:
        for path, shipped in _leaves(ConfigParser.load_config_file(file)):
            # --fold all, --resume auto: the schema knows them
            if isinstance(shipped, int | float) and path in texts and path not in (("fold",), ("resume",)):
                expected = "true or false" if isinstance(shipped, bool) else "a number"
                raise UserError("unusable option", f"{_WHERE}, {'::'.join(path)}", expected, repr(texts[path]), _STEP)


def _read_booleans(entries: Any, target: Any, id: str = "") -> Iterator[tuple[str, bool]]:
    """Replace text in ``target``, whose ``entries`` are looked at, and in all that it contains; ids and new values."""
    for key, value in entries.items() if isinstance(entries, dict) else enumerate(entries):
        inside = f"{id}::{key}" if id else str(key)
        if isinstance(value, dict | list):
            yield from _read_booleans(value, value, inside)
        elif isinstance(value, str) and value.lower() in _BOOLEANS:
            target[key] = _BOOLEANS[value.lower()]
            yield inside, target[key]


def _has_expression(value: Any) -> bool:
    """Whether a value is, or contains, something that MONAI evaluates or replaces."""
    if isinstance(value, dict | list):
        return any(map(_has_expression, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def _leaves(config: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Entries of nested dictionaries; those of lists have no name that stays the same in another config."""
    for key, value in config.items():
        inside = (*path, *key.lstrip("+").split("::"))
        if isinstance(value, dict):
            yield from _leaves(value, inside)
        else:
            yield inside, value
