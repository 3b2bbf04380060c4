"""Files are complete or not there: write to a temporary name, then rename. And the SHA-256 of a file."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcd_inference.errors import UserError


def write_atomically(path: str | os.PathLike, write: Callable[[str], Any]) -> None:
    """Call ``write`` with a temporary name beside ``path``, then rename; interrupted, it leaves ``path`` as it was.

    The temporary name has the same suffixes. The folder is created; refused if it cannot be written or is full.
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


def remove_orphans(folder: str | os.PathLike) -> None:
    """Remove the temporary files of :func:`write_atomically` whose writers are gone: killed while they wrote."""
    for file in Path(folder).glob(".tmp-*-*"):
        number = file.name.split("-")[1]
        if number.isdigit() and not _is_written_by(int(number), file):
            file.unlink(missing_ok=True)


def _is_written_by(pid: int, file: Path) -> bool:
    """Whether the process exists, and existed when the file was begun: numbers of processes are used again."""
    import psutil  # data are prepared, and bundles opened, without it

    try:
        return psutil.Process(pid).create_time() <= file.stat().st_mtime
    except (psutil.Error, OSError):
        return False


def make_folder(folder: Path) -> Path:
    """Create ``folder`` with its parents, unless it exists, and return it; refused where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = error.strerror or type(error).__name__
        expected = "a place this user may write to"
        raise UserError("cannot create the output folder", folder, expected, found, "choose another folder") from error
    return folder


def require_writable(folder: str | os.PathLike) -> None:
    """Create ``folder`` and write to it, before hours of work end there; refused where that is not possible."""
    probe = make_folder(Path(folder)) / ".writable"
    # to create an empty file takes an entry of the folder only, which a full disk still grants
    write_text("x" * 2**16, probe)
    probe.unlink(missing_ok=True)  # another process of the run may have done so


def write_json(content: Any, path: str | os.PathLike) -> None:
    """JSON with an indent of 4 and a final newline, atomically. NaN has no JSON form and is refused."""
    write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: str | os.PathLike) -> None:
    """UTF-8 text, atomically; names of files that are no text are escaped, as JSON does."""

    def write(name: str) -> None:
        Path(name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="")

    write_atomically(path, write)


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file as hexadecimal digits, read in pieces, so that a checkpoint need not fit the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
