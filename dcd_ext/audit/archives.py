"""Judge files that hold pickles: checkpoints (a zip, or several pickles in a row), TorchScript, NumPy files."""

from __future__ import annotations

import ast
import io
import re
import zipfile
from collections.abc import Iterator
from typing import IO

from dcd_ext.audit.contents import DAMAGED
from dcd_ext.audit.findings import Finding
from dcd_ext.audit.pickles import legacy_problems, pickle_problems
from dcd_ext.audit.torchscript import torchscript_problems

__all__ = ["MAX_MEMBER", "PICKLED", "archive_findings"]

# whatever torch.load, numpy.load and pickle.load are usually given
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".npy", ".npz", ".ts", ".joblib", ".pt2", ".ptl", ".tar")
# larger than any pickle of names and shapes, or code
MAX_MEMBER = 64 * 2**20
_OBJECTS = "NumPy array of Python objects, which is a pickle"
_HEADER = 65536
_DAMAGED = (*DAMAGED, ValueError)


def archive_findings(file: str, stream: IO[bytes]) -> Iterator[Finding]:
    """Judge a file by its content, whatever its name is.

    Args:
        file: path in the bundle.
        stream: its bytes, seekable.
    """
    start = stream.read(8)
    stream.seek(0)
    # Python finds a zip by its end: it may begin with something else, which another reader takes for the file
    if start.startswith(b"PK"):
        yield from _zip_findings(file, stream)
    elif start.startswith(b"\x93NUMPY"):
        if _holds_objects(stream):
            yield Finding(file, "", _OBJECTS)
    elif start.startswith(b"\x80"):
        yield from (Finding(file, "", what) for what in legacy_problems(stream))
    else:
        yield Finding(file, "", "neither a zip, nor a NumPy file, nor a pickle that can be judged")
    stream.seek(0)
    if not start.startswith(b"PK") and zipfile.is_zipfile(stream):
        yield Finding(file, "", "a zip that begins with something else")


def _zip_findings(file: str, stream: IO[bytes]) -> Iterator[Finding]:
    try:
        archive = zipfile.ZipFile(stream)
    except _DAMAGED as e:
        yield Finding(file, "", f"archive cannot be read: {type(e).__name__}")
        return
    entries = archive.infolist()
    names = [entry.filename.lower() for entry in entries]
    if len(set(names)) != len(names):
        yield Finding(file, "", "the same name twice in the archive; upper and lower case count as the same")
    torchscript = any(name.endswith("/constants.pkl") for name in names)
    for entry in entries:
        inside = entry.filename.partition("/")[2] or entry.filename
        try:
            yield from (Finding(file, inside, what) for what in _member_problems(archive, entry, inside, torchscript))
        except _DAMAGED as e:
            yield Finding(file, inside, f"cannot be read: {type(e).__name__}")


def _member_problems(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, inside: str, torchscript: bool) -> list[str]:
    """libtorch finds its records whatever their case, NumPy reads what begins like an array whatever its name."""
    name, inside = entry.filename.lower(), inside.lower()
    if "\\" in entry.orig_filename or "\0" in entry.orig_filename:
        return ["backslash or null in a name of the archive"]
    pickled = name.endswith((".pkl", ".pickle"))
    code = inside.startswith("code/") and not name.endswith(".debug_pkl")
    if (pickled or code) and entry.file_size > MAX_MEMBER:
        return ["too large to be judged"]
    if pickled:
        return pickle_problems(io.BytesIO(archive.read(entry)), torchscript)
    if code:
        return torchscript_problems(archive.read(entry).decode("utf-8", errors="replace"))
    with archive.open(entry) as member:
        start = member.read(_HEADER)
    if start.startswith(b"\x93NUMPY") or name.endswith(".npy"):
        return [_OBJECTS] if _holds_objects(io.BytesIO(start)) else []
    return []


def _holds_objects(stream: IO[bytes]) -> bool:
    """Whether the header of an ``.npy`` file declares Python objects, or is none that can be read."""
    start = stream.read(_HEADER)
    wide = start[6:7] != b"\x01"
    length = int.from_bytes(start[8 : 12 if wide else 10], "little")
    text = start[12 if wide else 10 :][:length]
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
        described = str(header["descr"])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        return True
    return not start.startswith(b"\x93NUMPY") or len(text) < length or re.search(r"O|object", described) is not None
