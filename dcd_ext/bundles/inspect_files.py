"""Read the files of a bundle, by kind, into its inventory."""

import builtins
import configparser
import json
import re
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import yaml

from dcd_ext.bundles.contents import Contents
from dcd_ext.bundles.inspect_archives import describe
from dcd_ext.bundles.inspect_code import FAMILIAR, familiar, names_used, summarize_python

# bytes above which a file of a kind is not read: parsing takes at most a few seconds below
_LIMITS = {"python": 2**18, "json": 2**21, "yaml": 2**17, "logging": 2**16, "archive": 2**29}
_KINDS = {
    "python": (".py", ".pyw"),
    "json": (".json",),
    "yaml": (".yaml", ".yml"),
    "logging": (".conf", ".ini", ".cfg"),
    "archive": (".pt", ".pth", ".ts", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".zip"),
}
# characters of one expression, and of all together with some for each
_MAX_EXPRESSION, _MAX_EXPRESSIONS, _EACH = 10_000, 1_000_000, 50
# files and folders that Python, git, editors, shells and test runners execute or read automatically
_STARTED = re.compile(
    r"(^|/)(\.git|\.vscode|\.idea|\.github|\.envrc|\.pdbrc|\.pythonrc.*|\.bashrc|\.profile|\.pre-commit-config\.yaml"
    r"|(site|user)customize\.py|conftest\.py|setup\.(py|cfg)|pyproject\.toml|tox\.ini|pytest\.ini|noxfile\.py"
    r"|makefile|dockerfile|__pycache__)(/|$)|\.(so|pyd|dll|dylib|pyc|pth|exe|bat|cmd|sh|ps1|command|desktop)$"
)
_OUTSIDE = re.compile(r"(/|~|[A-Za-z]:[\\/])|(.{0,500}[\\/])?\.\.([\\/]|$)")


class Inventory:
    """What was found by :meth:`read`.

    Attributes:
        lines: ``python``, ``archives``, ``downloads``, ``started``: a line for each file or entry.
        counts: how often what occurs: names in ``expressions`` (``logging.conf`` included), ``targets`` that are no
            classes of a familiar package, packages of the ``familiar`` ones, hosts (``addresses``) and paths
            (``outside``) that configs name, endings of ``others``.
        unread: reason -> files.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.lines: defaultdict[str, list[str]] = defaultdict(list)
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.expression_count = self._expression_length = 0
        self.unread: defaultdict[str, list[str]] = defaultdict(list)

    def read(self, path: str) -> None:
        """Read one file and add what it contains."""
        if _STARTED.search(path.lower()):
            self.lines["started"].append(path)
        try:
            kind = self._kind(path)
            if kind is None:
                self.counts["others"][PurePosixPath(path).suffix.lower() or "without ending"] += 1
            elif self.contents.sizes[path] > _LIMITS[kind]:
                self._leave_out("too large", path)
            elif kind == "archive":
                self._archive(path)
            else:
                readers: dict[str, Callable[[str, bytes], None]] = {
                    "python": self._python,
                    "logging": self._logging,
                    "json": lambda _, content: self._config(path, json.loads(content)),
                    "yaml": lambda _, content: self._config(path, yaml.load(content, _PlainLoader)),
                }
                readers[kind](path, self.contents.read(path))
        except Exception as error:  # what hostile files raise cannot be foreseen
            reason = "too large" if str(error) == "too large" else f"cannot be read ({type(error).__name__})"
            self._leave_out(reason, path)

    def _kind(self, path: str) -> str | None:
        """By the ending, or by the first bytes: code and configs work under any name."""
        with self.contents.files[path]() as file:
            head = file.read(64)
        lower = path.lower()
        kind = next((kind for kind, endings in _KINDS.items() if lower.endswith(endings)), None)
        if kind is None and not lower.endswith((".md", ".txt", ".ipynb")):
            if head.startswith((b"\x80", b"PK\x03\x04")):
                return "archive"
            if head.lstrip().startswith((b"{", b"[")):
                return "json"
            if head.startswith(b"#!"):
                self.lines["started"].append(path)
        return kind

    def _python(self, path: str, content: bytes) -> None:
        top = PurePosixPath(path).parts[0].removesuffix(".py")
        hides = top in sys.stdlib_module_names or top in FAMILIAR
        note = "; named like a module: Python started in the bundle's folder imports it instead" if hides else ""
        self.lines["python"].append(f"{path}: {summarize_python(content)}{note}")

    def _archive(self, path: str) -> None:
        """From a copy: files within a zip cannot be searched."""
        with self.contents.files[path]() as source, tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            copy.seek(0)
            self.lines["archives"].append(f"{path}: {describe(copy)}")

    def _logging(self, path: str, content: bytes) -> None:
        """``logging.config.fileConfig`` evaluates these entries."""
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(content.decode("utf-8"))
        for section in parser.sections():
            for key in ("class", "args", "kwargs"):
                if parser.has_option(section, key):
                    self._expression(path, parser.get(section, key))

    def _expression(self, path: str, text: str) -> None:
        self.expression_count += 1
        self._expression_length += len(text) + _EACH
        if len(text) > _MAX_EXPRESSION or self._expression_length > _MAX_EXPRESSIONS:
            self._leave_out("expressions that are too large or too many", path)
            return
        try:
            self.counts["expressions"].update(names_used(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self._leave_out("expressions that are no Python", path)

    def _leave_out(self, reason: str, path: str) -> None:
        if path not in self.unread[reason]:
            self.unread[reason].append(path)

    def _config(self, path: str, config: Any) -> None:
        """Every string of a config, and its classes; MONAI merges files, so that any file may be one."""
        name = PurePosixPath(path).name.lower()
        if name.startswith("large_files") and isinstance(config, dict):
            self._large_files(config)  # and go on: nothing keeps it from being a config as well
        stack, seen = [config], set()
        while stack:
            value = stack.pop()
            if isinstance(value, str):
                self._text(path, value, name)
            elif isinstance(value, (dict, list)) and id(value) not in seen:
                seen.add(id(value))  # YAML may name one object many times
                stack.extend(value.values() if isinstance(value, dict) else value)
                if isinstance(value, dict) and isinstance(value.get("_target_"), str):
                    self._target(value["_target_"])

    def _text(self, path: str, text: str, name: str) -> None:
        if text.startswith("$"):
            self._expression(path, text[1:])
        elif name != "metadata.json":
            scheme, found, rest = text.partition("://")
            if found:
                self.counts["addresses"][f"{scheme[-10:]}://{rest[:100].partition('/')[0]}"] += 1
            elif _OUTSIDE.match(text):
                self.counts["outside"][text[:100]] += 1

    def _target(self, name: str) -> None:
        """A class of MONAI may stand without its module; functions may do anything, so they are named."""
        if name.startswith("$"):
            return  # an expression
        last = name.rpartition(".")[2]
        if last[:1].isupper() and (familiar(name) or (name == last and not hasattr(builtins, name))):
            self.counts["familiar"][name.partition(".")[0] if "." in name else "monai"] += 1
        else:
            self.counts["targets"][name] += 1

    def _large_files(self, config: dict[str, Any]) -> None:
        for entry in config.get("large_files") or []:
            checked = str(entry.get("hash_type")).lower() == "sha256" and len(str(entry.get("hash_val"))) == 64
            word = "with SHA-256" if checked else "WITHOUT SHA-256"
            self.lines["downloads"].append(f"{entry.get('path')} from {str(entry.get('url'))[:100]}, {word}")


class _PlainLoader(yaml.BaseLoader):
    """Containers and strings; ``<<`` is a key like any other, because a few lines that merge could grow for ever.

    Not libyaml's loader, which overflows the stack on deep nesting.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if [key.value for key, _ in node.value].count("<<") > 1:  # the last one would hide the others
            raise ValueError("several merge keys")
        return super().construct_mapping(node, deep)
