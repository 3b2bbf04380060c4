"""Files are complete or not there: write to a temporary name, then rename."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["save_checkpoint", "sha256", "write_atomically", "write_json", "write_text"]


def write_atomically(path: str | os.PathLike, write: Callable[[str], Any]) -> None:
    """Call ``write`` with a temporary name beside ``path``, then rename; interrupted, it leaves ``path`` as it was.

    Args:
        path: final name; its folder is created.
        write: writes the whole file at the name it is given.
    """
    path = os.fspath(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # the process id keeps two runs that share a folder apart
    temporary = f"{path}.{os.getpid()}.part"
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def save_checkpoint(checkpoint: Any, path: str | os.PathLike) -> None:
    """``torch.save``, atomically. The checkpoint should hold tensors, numbers and strings only (``weights_only``)."""
    write_atomically(path, lambda name: torch.save(checkpoint, name))


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file as hexadecimal digits, read block by block: checkpoints need not fit into memory twice."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_json(content: Any, path: str | os.PathLike) -> None:
    """JSON with an indent of 4 and a final newline, atomically. NaN has no JSON form and is refused."""

    def write(name: str) -> None:
        with open(name, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=4, ensure_ascii=False, allow_nan=False)
            file.write("\n")

    write_atomically(path, write)


def write_text(text: str, path: str | os.PathLike) -> None:
    """UTF-8 text, atomically."""

    def write(name: str) -> None:
        with open(name, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    write_atomically(path, write)
