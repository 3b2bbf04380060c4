"""Judge pickles by their opcodes: whatever needs more than ``torch.load(weights_only=True)`` may run code."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import IO

from dcd_ext.share.allowed import words
from dcd_ext.share.audit_torchscript import torchscript_problems
from dcd_ext.share.findings import Finding

__all__ = ["archive_findings", "pickle_problems"]

# what torch's weights-only reader implements
_OPCODES = words(
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST "
    "EMPTY_SET EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM "
    "SETITEMS SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3"
)
_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|qtensor|sparse_tensor)"
    r"|torch (\w+Storage|Size|device|Tensor|[a-z]+\d+|double|float|half|long|int|short|bool|bfloat16)"
    r"|torch\.storage (UntypedStorage|TypedStorage)"
    r"|torch\.nn\.parameter Parameter"
    r"|torch\.serialization _get_layout"
    r"|_codecs encode|builtins (set|bytearray|complex)"
)
# only TorchScript's own reader, which runs no Python, meets these
_SCRIPT_GLOBALS = re.compile(r"__torch__[\w.]* \w+|torch\.jit\._pickle \w+")
_MAX_BYTES = 64 * 2**20


def pickle_problems(stream: IO[bytes], torchscript: bool = False) -> list[str]:
    """What in a pickle is not tensors, numbers, text and containers.

    Args:
        stream: the pickle; it is read, never loaded.
        torchscript: whether only TorchScript's reader meets it.
    """
    names: set[str] = set()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                names.add(str(argument))
            elif opcode.name not in _OPCODES and not torchscript:
                names.add(f"opcode {opcode.name}")
    except Exception as e:  # a made-up pickle may fail anywhere
        return [f"not a readable pickle: {type(e).__name__}"]
    refused = [n for n in names if not (_GLOBALS.fullmatch(n) or (torchscript and _SCRIPT_GLOBALS.fullmatch(n)))]
    return [f"pickle needs {name.replace(' ', '.')}, more than weights_only=True allows" for name in sorted(refused)]


def archive_findings(file: str, stream: IO[bytes]) -> Iterator[Finding]:
    """Judge a file by its content: a zip of ``torch.save`` or TorchScript, a NumPy file, or a bare pickle.

    Args:
        file: path in the bundle.
        stream: its bytes; a zip needs a seekable stream.
    """
    start = stream.read(8)
    stream.seek(0)
    if start.startswith(b"PK"):
        yield from _zip_findings(file, stream)
    elif start.startswith(b"\x80"):
        yield from (Finding(file, "", what) for what in _legacy_problems(stream))
    elif start.startswith(b"\x93NUMPY") and _holds_objects(stream):
        yield Finding(file, "", "NumPy array of Python objects, which is a pickle")


def _legacy_problems(stream: IO[bytes]) -> Iterator[str]:
    """Old checkpoints are several pickles in a row (a magic number first), followed by raw numbers."""
    seen: set[str] = set()
    data = stream.read(_MAX_BYTES)
    position = 0
    while data[position : position + 1] == b"\x80":
        part = io.BytesIO(data[position:])
        for what in pickle_problems(part):
            # behind the last pickle come the numbers, which may begin like one
            if position == 0 or not what.startswith("not a readable"):
                seen.add(what)
        if part.tell() == 0:
            break
        position += part.tell()
    yield from sorted(seen)


def _zip_findings(file: str, stream: IO[bytes]) -> Iterator[Finding]:
    try:
        archive = zipfile.ZipFile(stream)
        names = archive.namelist()
        torchscript = any(name.endswith("/constants.pkl") for name in names)
        for name in names:
            inside = name.partition("/")[2] or name
            if name.endswith((".pkl", ".pickle")):
                for what in pickle_problems(io.BytesIO(archive.read(name)), torchscript):
                    yield Finding(file, inside, what)
            elif inside.startswith("code/") and name.endswith(".py"):
                for what in torchscript_problems(archive.read(name).decode("utf-8", errors="replace")):
                    yield Finding(file, inside, what)
            elif name.endswith(".npy") and _holds_objects(io.BytesIO(archive.read(name))):
                yield Finding(file, inside, "NumPy array of Python objects, which is a pickle")
        if len(set(names)) != len(names):
            yield Finding(file, "", "the same name twice in the archive")
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as e:
        yield Finding(file, "", f"archive cannot be read: {e}")


def _holds_objects(stream: IO[bytes]) -> bool:
    """Whether the header of an ``.npy`` file declares Python objects."""
    header = stream.read(4096)
    return re.search(rb"'descr':[^}]*[|'\"]O", header) is not None
