"""Judge arguments by their names: switches that unpickle, names that are looked up in any module, addresses, paths.

Anything that cannot be read off the config, such as ``$True`` or ``@switch``, is refused where only one value is safe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dcd_ext.audit.names import is_class

__all__ = ["COMPUTED", "argument_name", "argument_problem", "literal_problem"]


class _Computed:
    """Stands for a value that only running the bundle would tell."""


COMPUTED = _Computed()

# the only literals that may be given
_SAFE: dict[str, tuple[object, ...]] = {
    "allow_pickle": (False, None),
    "weights_only": (True,),
    "trust_remote_code": (False, None),
    "shell": (False, None),
    "pickle_module": ("pickle", None),
}
# LoadImage, SaveImage and PatchInferer look these up in any module and call them
_LOOKED_UP = {"reader": "monai.data", "writer": "monai.data", "merger_cls": "monai.inferers"}
_LOOKED_UP_NAME = re.compile(r"\w+(Reader|Writer|Merger)")
_READERS = re.compile(r"(pydicom|nvimgcodecpydicom|itk|nrrd|numpy|pil|nibabel)reader", re.IGNORECASE)
_DOWNLOADS = re.compile(r"pretrained\w*|\w*url|output_uri|init_method")
_SQLITE = re.compile(r"\$\s*monai\.utils\.path_to_sqlite_uri\([^()]*\)")
# a word alone, such as "databricks", may be a server
_LOCAL_STORE = re.compile(r"((file|sqlite):///(?!/)|file:(?!/)|[\w.-]*/(?!/))[^:@\\]*|mlruns")
_SAME_KEY = re.compile(r"@(\w+::)*tracking_uri")
# where honest configs name a place on their author's computer, for the user to replace; they are read
_PLACEHOLDERS = re.compile(
    r"(dataset|data|image|label|input|train|val|validation|test|datalist|data_list)\w*"
    r"|(base|root)_dir|data_file_base_dir|images|labels"
)
_UP = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_ABSOLUTE = re.compile(r"[/\\]\w|[/\\]{2}|~|[A-Za-z]:[/\\]|[/\\]\.")
# what is written under such a name is run later; logs and tables hold texts that a config chooses
_CODE_NAME = re.compile(
    r".*(\.(py[cdow]?|so|dll|pyd|sh|bat|cmd|ps1|conf|ini|cfg)|pdbrc|matplotlibrc)", re.IGNORECASE | re.DOTALL
)
# a teacher's weights lie in the bundle beside this one
_SIBLING = re.compile(r"(/?\.\./[\w-]+/models/[\w-]+\.(pt|ts))")


def argument_name(key: str) -> str:
    """Name of the argument that a config id gives: its last part that is no index of a list."""
    parts = [part for part in key.replace("#", "::").split("::") if not part.isdigit()]
    return parts[-1].lstrip("+~") if parts else ""


def argument_problem(name: str, value: object) -> str | None:
    """What is wrong with one argument.

    Args:
        name: the keyword.
        value: its literal value, or ``COMPUTED``; items of a list are judged one by one.
    """
    if name == "_debug_":
        return "_debug_ starts a debugger"
    if isinstance(value, list | tuple):
        return next((p for p in (argument_problem(name, item) for item in value) if p), None)
    if name in _SAFE:
        safe = any(value is known or (isinstance(known, str) and value == known) for known in _SAFE[name])
        return None if safe else f"{name} switches a protection off: only {_SAFE[name][0]!r} is safe"
    if name in _LOOKED_UP:
        known = value is None or (isinstance(value, Mapping) and "_target_" in value)
        return None if known or _is_known_name(name, value) else f"{name} {_short(value)}: a name looked up anywhere"
    if name == "tracking_uri":
        return None if _is_local(value) else f"tracking_uri {_short(value)} may be another computer"
    if _DOWNLOADS.fullmatch(name) and value is not None and value is not False:
        return f"{name} asks for a download"
    return None


def _short(value: object) -> str:
    return "computed" if value is COMPUTED else repr(value)[:80]


def _is_known_name(name: str, value: object) -> bool:
    if not isinstance(value, str) or not value.isascii():
        return False
    if name == "reader" and _READERS.fullmatch(value):
        return True
    return _LOOKED_UP_NAME.fullmatch(value) is not None and is_class(value, _LOOKED_UP[name])


def _is_local(value: object) -> bool:
    """A file, MONAI's own database of runs, or the key of the same name, which is judged, too."""
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    if value[:1] in "$@%":
        return bool(_SQLITE.fullmatch(value) or _SAME_KEY.fullmatch(value))
    return _LOCAL_STORE.fullmatch(value) is not None


def literal_problem(name: str, text: str, appended: bool = False) -> str | None:
    """What is wrong with a text in a config: addresses, names of code, paths out of the bundle.

    Args:
        name: the argument it is given to.
        text: the text.
        appended: whether it is added to another text, so that a leading slash makes it no absolute path.
    """
    if "://" in text and name != "tracking_uri":
        return f"an address: {text[:80]}"
    if _CODE_NAME.fullmatch(text.rstrip()):
        return f"the name of a file of code: {text[-80:]}"
    if _PLACEHOLDERS.fullmatch(name) or _SIBLING.fullmatch(text):
        return None
    if _UP.search(text) or (not appended and _ABSOLUTE.match(text)):
        return f"a path out of the bundle: {text[:80]}"
    return None
