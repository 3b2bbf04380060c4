"""Judge ``large_files``: downloads that a bundle asks for, where they go, and whether they can be told from others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dcd_ext.audit.findings import Finding

__all__ = ["is_large_files", "is_safe_address", "large_files_findings"]

_FIELDS = {"path", "url", "hash_val", "hash_type"}
# what is downloaded later is not seen by the audit, so it must not be code or a config
_PATH = re.compile(r"models/[\w-][\w.-]*\.(pt|ts|onnx|bin|xml)")
_HASH = {"sha256": re.compile(r"[0-9a-fA-F]{64}"), "sha512": re.compile(r"[0-9a-fA-F]{128}")}


def is_large_files(file: str) -> bool:
    """Whether MONAI takes a file for a list of downloads: it looks for ``large_files*``."""
    return file.rpartition("/")[2].lower().startswith("large_files")


def is_safe_address(url: str) -> bool:
    """Whether an address is https with a plain host, or this machine's."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or "@" in parts.netloc or "\\" in url or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host == "127.0.0.1")


def large_files_findings(file: str, content: Any) -> list[Finding]:
    """Everything in a list of downloads that is not plain.

    Args:
        file: path in the bundle.
        content: what json or yaml made of it.
    """
    if not isinstance(content, Mapping) or set(content) != {"large_files"}:
        return [Finding(file, "", "a list of downloads whose only key is not 'large_files'")]
    entries = content["large_files"]
    if not isinstance(entries, list):
        return [Finding(file, "large_files", "not a list")]
    findings = []
    for i, entry in enumerate(entries):
        problems = _entry_problems(entry) if isinstance(entry, Mapping) else ["not a download with path and url"]
        findings += [Finding(file, f"large_files::{i}", what) for what in problems]
    return findings


def _entry_problems(entry: Mapping[Any, Any]) -> list[str]:
    path, url = str(entry.get("path", "")), str(entry.get("url", ""))
    problems = []
    if set(entry) - _FIELDS:
        problems.append(f"fields {sorted(map(str, set(entry) - _FIELDS))} that are not on the allow-list")
    if ".." in path or path.startswith(("/", "\\", "~")) or ":" in path:
        problems.append(f"path traversal: {path}")
    elif not _PATH.fullmatch(path):
        problems.append(f"download to {path}, which is no file of weights in models")
    pattern = _HASH.get(str(entry.get("hash_type")))
    if pattern is None or not pattern.fullmatch(str(entry.get("hash_val"))):
        problems.append(f"download of {url} without a SHA-256")
    if not is_safe_address(url):
        problems.append(f"download from {url}, which is not https with a plain host")
    return problems
