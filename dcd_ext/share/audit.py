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

from dcd_ext.errors import UserError
from dcd_ext.share.audit_configs import SUFFIXES, config_findings, load_config
from dcd_ext.share.audit_logging import logging_findings
from dcd_ext.share.audit_pickles import archive_findings
from dcd_ext.share.audit_python import python_problems
from dcd_ext.share.contents import Contents, open_contents
from dcd_ext.share.findings import Finding

__all__ = ["audit"]

# files that programs load or start by their mere presence
_CODE = (".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo", ".pth", ".egg", ".whl", ".exe", ".bat", ".cmd", ".ps1", ".sh")
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
    if suffix in _CODE:
        return [Finding(file, "", "a kind of file that programs load or start by itself")]
    if suffix == ".py":
        return _python_findings(file, contents.read(file), own_modules)
    if suffix in SUFFIXES:
        if posixpath.basename(file).startswith("large_files."):
            return _large_files_findings(file, load_config(file, contents.read(file)))
        configs[file] = load_config(file, contents.read(file))
        return []
    if suffix in _LOGGING:
        return logging_findings(file, contents.read(file).decode("utf-8", errors="replace"))
    with contents.files[file]() as stream:
        start = stream.read(4)
    if start.startswith(_EXECUTABLE):
        return [Finding(file, "", "a program or script")]
    if start.startswith((b"PK", b"\x80", b"\x93NUM")):
        return _archive_findings(contents, file, configs)
    if suffix == ".onnx":
        return _onnx_findings(file, contents.read(file))
    return []


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
    if zipfile.is_zipfile(data):
        archive = zipfile.ZipFile(data)
        for name in archive.namelist():
            inside = name.partition("/")[2]
            # MONAI Label and the Deploy SDK build transforms from the configs in here
            if inside.startswith("extra/") and name.endswith(SUFFIXES):
                configs[f"{file}/{inside}"] = load_config(name, archive.read(name))
    return findings


def _second_configs(configs: dict[str, Any]) -> list[Finding]:
    """Configs a reader would not look at, although programs do."""
    findings = []
    stems: dict[str, str] = {}
    for file, config in configs.items():
        folder, base = posixpath.split(file)
        stem = posixpath.splitext(file)[0]
        # a hub's own records of a download lie in a hidden folder, too
        if any(part.startswith(".") for part in file.split("/")) and _is_program(config):
            findings.append(Finding(file, "", "hidden config"))
        if stem in stems:
            findings.append(Finding(file, "", f"second config of the same name as {stems[stem]}"))
        stems.setdefault(stem, file)
        if folder.endswith("/extra"):
            original = f"configs/{base}"
            if base == "inference.json" and configs.get(original) != config:
                findings.append(Finding(file, "", f"second config: differs from {original}"))
        elif not file.startswith(("configs/", _RUN_RECORD)) and _is_program(config):
            findings.append(Finding(file, "", "second config: outside of configs"))
    return findings


def _is_program(config: Any) -> bool:
    text = str(config)
    return "_target_" in text or "'$" in text


def _large_files_findings(file: str, content: Any) -> list[Finding]:
    """Downloads that a bundle asks for: where they go, and whether they can be told from others."""
    findings = []
    for i, entry in enumerate((content or {}).get("large_files", []) if isinstance(content, dict) else []):
        key, path, url = f"large_files::{i}", str(entry.get("path", "")), str(entry.get("url", ""))
        if posixpath.isabs(path) or ".." in path.split("/") or "\\" in path or ":" in path:
            findings.append(Finding(file, key, f"path traversal: {path}"))
        if entry.get("hash_type") not in ("sha256", "sha512") or not entry.get("hash_val"):
            findings.append(Finding(file, key, f"download of {url} without a SHA-256"))
        if not url.startswith(("https://", "http://127.0.0.1")):
            findings.append(Finding(file, key, f"download from {url}, which is not https"))
    return findings


def _onnx_findings(file: str, content: bytes) -> list[Finding]:
    """ONNX keeps large weights in other files, at any path it likes."""
    findings = []
    for length, rest in _ONNX_LOCATION.findall(content):
        path = rest[: length[0]].decode("utf-8", errors="replace")
        if path.startswith(("/", "\\")) or ".." in path or ":" in path:
            findings.append(Finding(file, "external_data", f"path traversal: reads {path}"))
    return findings
