"""Judge ``logging.conf``: Python's ``fileConfig`` imports its classes and evaluates its arguments."""

from __future__ import annotations

import ast
import configparser
import re

from dcd_ext.audit.findings import Finding

__all__ = ["logging_findings"]

_CLASSES = {"StreamHandler", "NullHandler", "FileHandler", "Formatter"}
_MODES = {"a", "w", "utf-8", "utf8"}
# the format decides what is written: to "glob.py" it would write a program
_LOG_NAME = re.compile(r"(\w[\w-]*/)*\w[\w.-]*\.(log|txt)")
_STREAMS = {"sys.stdout", "sys.stderr"}


def logging_findings(file: str, text: str) -> list[Finding]:
    """Every class and argument of a logging configuration that is not plain.

    Args:
        file: its path in the bundle.
        text: its content.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as e:
        return [Finding(file, "", f"cannot be read: {type(e).__name__}")]
    findings = []
    for section in (parser.default_section, *parser.sections()):
        for option, value in parser.items(section):
            what = _problem(option, value.strip())
            if what:
                findings.append(Finding(file, f"[{section}] {option}", what))
    return findings


def _problem(option: str, value: str) -> str | None:
    # fileConfig reads these two raw; in all others %(name)s is replaced before they are evaluated
    if "%(" in value and option not in ("format", "datefmt"):
        return f"{value[:80]!r}: %( is replaced by the value of another option"
    if option == "class" and value.removeprefix("logging.") not in _CLASSES:
        return f"class {value!r} is not on the allow-list"
    if option in ("args", "kwargs", "defaults") and not _is_plain(value):
        return f"argument {value[:80]!r} is neither a literal nor sys.stdout or sys.stderr, or names a file elsewhere"
    return None


def _is_plain(text: str) -> bool:
    """Literals and the two standard streams; a file name stays below the working directory."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    elements = tree.elts if isinstance(tree, ast.Tuple) else [tree]
    return all(_is_plain_element(e) for e in elements)


def _is_plain_element(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) in _STREAMS
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, str):
            return value in _MODES or _LOG_NAME.fullmatch(value) is not None
        return value is None or isinstance(value, bool | int)
    return isinstance(node, ast.Dict) and not node.keys
