"""Weights that travel beside the zip, as in the model zoo: ``large_files.yml`` says where they are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import yaml

from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_text

__all__ = ["check_address", "listed_files", "move_out"]

LARGE_FILES = "large_files.yml"


def move_out(root: Path, target: Path, url: str) -> dict[str, str]:
    """Move the weights of a bundle out of its folder and list them.

    Args:
        root: the bundle's folder; its ``models`` are moved and ``large_files.yml`` is written.
        target: folder to upload below ``url``; the files keep their path inside the bundle.
        url: where they will be downloaded from.

    Returns:
        Path inside the bundle -> SHA-256 of the moved files.
    """
    entries = []
    for file in sorted((root / "models").glob("model.*")):
        path = file.relative_to(root).as_posix()
        entries.append(
            {
                "path": path,
                "url": f"{url.rstrip('/')}/{path}",
                "hash_val": sha256(file),
                "hash_type": "sha256",
            }
        )
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        file.replace(target / path)
    write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False), root / LARGE_FILES)
    return {entry["path"]: entry["hash_val"] for entry in entries}


def check_address(url: str) -> None:
    """Refuse an address that is neither https nor this machine's.

    Raises:
        UserError: then.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
        raise UserError("address of the weights", url, "https://...", "something else", "use an encrypted address")


def listed_files(content: bytes) -> frozenset[str]:
    """Paths that a ``large_files.yml`` lists."""
    entries = (yaml.safe_load(content) or {}).get("large_files") or []
    return frozenset(str(entry.get("path")) for entry in entries)
