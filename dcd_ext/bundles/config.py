"""Refuse unknown config keys: MONAI accepts a mistyped one in silence and then does not do what it says."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from dcd_ext.errors import UserError

__all__ = ["check_keys", "unknown_keys"]

# what MONAI itself adds to a config: the metadata and what --tracking brings along
_TRACKING: Any = DEFAULT_MLFLOW_SETTINGS["configs"]
_MONAI_KEYS = {"_meta_", *_TRACKING}


def check_keys(bundle_root: str, extra_keys: tuple[str, ...] | list[str] = ()) -> None:
    """Compare the running config with the files shipped in ``<bundle_root>/configs``.

    Call it in ``initialize``. Every top-level key and every key of a group without ``_target_`` (``train``,
    ``validate``) has to occur in one of the shipped files; arguments of a class are checked by the class itself.

    Args:
        bundle_root: folder of the bundle.
        extra_keys: further keys the user means to set, as written on the command line.

    Raises:
        UserError: on the first unknown key, with the nearest known one.
    """
    folder = Path(bundle_root) / "configs"
    # monai.bundle.load passes no bundle_root, and "." is wherever the user is: take the folder of the running config
    files = sorted(folder.rglob("*.json")) or sorted(_running_folder().rglob("*.json"))
    if not files:
        raise UserError(
            "no bundle", bundle_root, "a folder with configs/metadata.json", "none", "pass --bundle_root <bundle>"
        )
    known: dict[str, set[str]] = {}
    for file in files:
        if file.name != "metadata.json":
            for group, keys in _groups(ConfigParser.load_config_file(file)):
                known.setdefault(group, set()).update(keys)
    known[""] |= _MONAI_KEYS
    running: Any = _running_parser().config
    for name in unknown_keys(running, known):
        if name not in extra_keys and name.replace("::", "#") not in extra_keys:
            close = difflib.get_close_matches(name, _names(known), n=1)
            raise UserError(
                "unknown config key",
                "command line or config file",
                f"'{close[0]}'" if close else "a key of the shipped configs",
                f"'{name}'",
                f"correct it, or pass --extra_keys \"['{name}']\" if you mean it",
            )


def unknown_keys(config: Mapping, known: Mapping[str, set[str]]) -> list[str]:
    """Keys of ``config`` that ``known`` (group -> keys) does not list, as ``group::key``."""
    return [
        f"{group}::{key}" if group else key
        for group, keys in _groups(config)
        for key in sorted(keys)
        if group in known and key not in known[group]
    ]


def _groups(config: Mapping, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each group of keys with its id: the top level and nested dictionaries that are not a class."""
    keys: set[str] = set()
    for key, value in config.items():
        # an overlay writes "train#trainer#amp" and "+train#handlers"
        first, *rest = key.lstrip("+").replace("#", "::").split("::")
        keys.add(first)
        if rest and not name:
            yield first, {rest[0]}
        if isinstance(value, Mapping) and "_target_" not in value and not name and first != "_meta_":
            yield from _groups(value, first)
    yield name, keys


def _names(known: Mapping[str, set[str]]) -> list[str]:
    return [f"{group}::{key}" if group else key for group, keys in known.items() for key in keys]


def _running_parser() -> ConfigParser:
    """The parser that is evaluating the expression this was called from.

    MONAI gives expressions no access to the merged config, and ``python -m monai.bundle run`` allows no workflow
    class of ours, so the call stack is the only place left to find it.
    """
    for owner in _callers():
        if isinstance(owner, ConfigParser):
            return owner
    raise RuntimeError("check_keys has to be called from a '$' expression of a bundle config")


def _running_folder() -> Path:
    """Folder of the config file that is being evaluated; one that does not exist outside of a workflow."""
    workflows = (owner for owner in _callers() if isinstance(owner, ConfigWorkflow))
    return next((Path(w.config_root_path) for w in workflows), Path("no config"))


def _callers() -> Iterator[Any]:
    """Every ``self`` on the call stack, innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals.get("self")
        frame = frame.f_back
