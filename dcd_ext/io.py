"""Files are complete or not there: write to a temporary name, then rename. And the SHA-256 of a file."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError


def write_atomically(path: str | os.PathLike, write: Callable[[str], Any]) -> None:
    """Call ``write`` with a temporary name beside ``path``, then rename; interrupted, it leaves ``path`` as it was.

    The temporary name has the same suffixes. The folder is created.

    Raises:
        UserError: if the folder cannot be written or is full.
    """
    path = Path(path)
    # Hidden, so that no search for data finds it. The process id keeps two runs that share a folder apart.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    make_folder(path.parent)
    try:
        write(str(temporary))
        os.replace(temporary, path)
    except OSError as error:
        found, step = error.strerror or type(error).__name__, "choose another folder, or free space and start again"
        raise UserError("cannot write the file", path, "a writable folder with free space", found, step) from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> Path:
    """Create ``folder`` with its parents, unless it exists, and return it.

    Raises:
        UserError: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = error.strerror or type(error).__name__
        expected = "a place this user may write to"
        raise UserError("cannot create the output folder", folder, expected, found, "choose another folder") from error
    return folder


def save_checkpoint(checkpoint: Any, path: str | os.PathLike) -> None:
    """``torch.save``, atomically. The checkpoint should hold tensors, numbers and strings only (``weights_only``)."""
    # torch takes a second to import, and data are prepared without it
    import torch

    write_atomically(path, lambda name: torch.save(checkpoint, name))


def write_json(content: Any, path: str | os.PathLike) -> None:
    """JSON with an indent of 4 and a final newline, atomically. NaN has no JSON form and is refused."""
    write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: str | os.PathLike) -> None:
    """UTF-8 text, atomically."""
    write_atomically(path, lambda name: Path(name).write_text(text, encoding="utf-8", newline=""))


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file as hexadecimal digits, read in pieces, so that a checkpoint need not fit the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
