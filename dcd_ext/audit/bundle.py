"""Read a bundle that somebody else made, without executing any of it, and list what is not on the allow-list.

A bundle's config is a program: MONAI calls every ``_target_`` and evaluates every ``$`` expression, Python's logging
evaluates ``logging.conf``, and a checkpoint is a pickle. The audit parses all of them as data.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from pathlib import Path
from typing import Any

from dcd_ext.audit.archives import MAX_MEMBER, PICKLED, archive_findings
from dcd_ext.audit.configs import config_findings, is_program, load_config
from dcd_ext.audit.contents import Contents, open_contents
from dcd_ext.audit.files import name_problem, tool_folder
from dcd_ext.audit.findings import Finding
from dcd_ext.audit.large_files import is_large_files, large_files_findings
from dcd_ext.audit.logging_conf import logging_findings
from dcd_ext.audit.python_code import python_problems
from dcd_ext.audit.references import SUFFIXES
from dcd_ext.errors import UserError

__all__ = ["audit"]

_LOGGING = (".conf", ".ini", ".cfg")
_EXECUTABLE = (b"\x7fELF", b"MZ", b"#!", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")
# MLflow tracking keeps the config of each run; it is audited, but nobody takes it for the bundle's
_RUN_RECORD = "eval/config_"
# key "location" of ONNX's external data, as protobuf writes it, and the path that follows
_ONNX_LOCATION = re.compile(rb"\x0a\x08location\x12(.)([^\x00]{1,200})", re.DOTALL)


def audit(path: Path) -> list[Finding]:
    """Audit a bundle.

    Args:
        path: a bundle's folder, or its zip, which is not unpacked.

    Returns:
        Findings by file, empty if everything is on the allow-list.

    Raises:
        UserError: if ``path`` is neither a folder nor a zip.
    """
    contents = open_contents(path)
    findings = list(contents.findings)
    own_modules = _own_modules(contents)
    configs: dict[str, Any] = {}
    for file in sorted(contents.files):
        try:
            findings += _judge_file(contents, file, configs, own_modules)
        except UserError as e:
            findings.append(Finding(file, "", str(e)))
        except Exception as e:  # a made-up file may make any parser fail in any way
            findings.append(Finding(file, "", f"cannot be read: {type(e).__name__}"))
    findings += config_findings(configs, own_modules)
    findings += _second_configs(configs)
    return sorted(set(findings))


def _own_modules(contents: Contents) -> frozenset[str]:
    """Dotted names of the Python files below ``scripts``."""
    files = [f for f in contents.files if f.startswith("scripts/") and f.endswith(".py")]
    return frozenset(f.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for f in files)


def _judge_file(contents: Contents, file: str, configs: dict[str, Any], own_modules: frozenset[str]) -> list[Finding]:
    """Judge one file by its name and content; configs are collected and judged together."""
    suffix = posixpath.splitext(file)[1].lower()
    named = name_problem(file)
    if named and suffix != ".py":
        return [Finding(tool_folder(file) or file, "", named)]
    if suffix == ".py":
        return _python_findings(file, contents.read(file), own_modules)
    if suffix in SUFFIXES:
        configs[file] = load_config(file, contents.read(file))
        return large_files_findings(file, configs[file]) if is_large_files(file) else []
    if suffix in _LOGGING:
        return logging_findings(file, contents.read(file).decode("utf-8", errors="replace"))
    with contents.files[file]() as stream:
        start = stream.read(4)
    if start.startswith(_EXECUTABLE):
        return [Finding(file, "", "a program or script")]
    if suffix in PICKLED or start.startswith((b"PK", b"\x80", b"\x93NUM")):
        return _archive_findings(contents, file, configs)
    content = contents.read(file)
    if zipfile.is_zipfile(io.BytesIO(content)):
        return [Finding(file, "", "a zip that begins with something else")]
    return _onnx_findings(file, content) if suffix == ".onnx" else []


def _python_findings(file: str, content: bytes, own_modules: frozenset[str]) -> list[Finding]:
    problems = python_problems(content.decode("utf-8", "replace"), own_modules)
    findings = [Finding(file, line, what) for line, what in problems]
    if not file.startswith("scripts/"):
        findings.append(
            Finding(file, "", "Python outside scripts: in the working directory it replaces the module of its name")
        )
    return findings


def _archive_findings(contents: Contents, file: str, configs: dict[str, Any]) -> list[Finding]:
    """A checkpoint, a TorchScript archive (with the configs that travel in it), or a NumPy file."""
    data = io.BytesIO(contents.read(file))
    findings = list(archive_findings(file, data))
    data.seek(0)
    if not zipfile.is_zipfile(data):
        return findings
    archive = zipfile.ZipFile(data)
    for entry in archive.infolist():
        inside = entry.filename.partition("/")[2]
        # MONAI Label and the Deploy SDK build transforms from the configs in here
        if inside.lower().startswith("extra/") and inside.lower().endswith(SUFFIXES):
            if entry.file_size > MAX_MEMBER:
                findings.append(Finding(file, inside, "too large to be read"))
            else:
                configs[f"{file}/{inside}"] = load_config(entry.filename, archive.read(entry))
    return findings


def _second_configs(configs: dict[str, Any]) -> list[Finding]:
    """Configs a reader would not look at, although programs do."""
    findings = []
    stems: dict[str, str] = {}
    for file, config in configs.items():
        folder, base = posixpath.split(file)
        stem = posixpath.splitext(file)[0]
        # a hub's own records of a download lie in a hidden folder, too
        if any(part.startswith(".") for part in file.split("/")) and is_program(config):
            findings.append(Finding(file, "", "hidden config"))
        if stem in stems:
            findings.append(Finding(file, "", f"second config of the same name as {stems[stem]}"))
        stems.setdefault(stem, file)
        if folder.endswith("/extra"):
            original = f"configs/{base}"
            if base == "inference.json" and configs.get(original) != config:
                findings.append(Finding(file, "", f"second config: differs from {original}"))
        elif not file.startswith(("configs/", _RUN_RECORD)) and is_program(config):
            findings.append(Finding(file, "", "second config: outside of configs"))
    return findings


def _onnx_findings(file: str, content: bytes) -> list[Finding]:
    """ONNX keeps large weights in other files, at any path it likes; key and path come in any order."""
    paths = [(length[0], rest) for length, rest in _ONNX_LOCATION.findall(content)]
    for match in re.finditer(rb"\x0a\x08location", content):
        before = content[max(match.start() - 202, 0) : match.start()]
        paths += [(n, before[-n:]) for n in range(1, 128) if before[-n - 2 : -n] == bytes([0x12, n])]
    findings = []
    for length, rest in paths:
        path = rest[:length].decode("utf-8", errors="replace")
        if length > 127 or path.startswith(("/", "\\", "~")) or ".." in path or ":" in path:
            findings.append(Finding(file, "external_data", f"path traversal: reads {path}"))
    return findings
