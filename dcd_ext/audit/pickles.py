"""Judge pickles by their opcodes: whatever needs more than ``torch.load(weights_only=True)`` may run code."""

from __future__ import annotations

import io
import pickletools
import re
from typing import IO

from dcd_ext.audit.allowed import words

__all__ = ["legacy_problems", "pickle_problems"]

# what torch's weights-only reader implements
_OPCODES = words(
    "APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST "
    "EMPTY_SET EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM "
    "SETITEMS SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3"
)
# name something to call by other means than GLOBAL
_NAMING = words("STACK_GLOBAL INST OBJ NEWOBJ_EX EXT1 EXT2 EXT4")
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
# torch.save before 1.6: this number, a version, facts on the system, the object, the keys of its storages, raw numbers
_MAGIC, _PARTS = 0x1950A86A20F9469CFC6C, 5


def pickle_problems(stream: IO[bytes], torchscript: bool = False) -> list[str]:
    """What in a pickle is not tensors, numbers, text and containers.

    Args:
        stream: the pickle; it is read, never loaded.
        torchscript: whether only TorchScript's reader meets it.
    """
    names: set[str] = set()
    broken = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                names.add(str(argument))
            elif opcode.name in _NAMING or (opcode.name not in _OPCODES and not torchscript):
                names.add(f"opcode {opcode.name}")
    except Exception as e:  # a made-up pickle may fail anywhere, after it has done its harm
        broken = [f"not a readable pickle: {type(e).__name__}"]
    refused = [n for n in names if not (_GLOBALS.fullmatch(n) or (torchscript and _SCRIPT_GLOBALS.fullmatch(n)))]
    needs = [f"pickle needs {name.replace(' ', '.')}, more than weights_only=True allows" for name in sorted(refused)]
    return needs + broken


def legacy_problems(stream: IO[bytes]) -> list[str]:
    """What is wrong with a bare pickle, or with an old checkpoint: several pickles in a row, then raw numbers.

    Args:
        stream: the file.
    """
    data = io.BytesIO(stream.read(_MAX_BYTES))
    parts = _PARTS if _is_magic(data) else 1
    problems: list[str] = []
    for _ in range(parts):
        position = data.tell()
        if data.read(1) != b"\x80":
            return [*problems, "not a readable pickle: it begins like none of protocol 2 or later"]
        data.seek(position)
        found = pickle_problems(data)
        problems += [what for what in found if what not in problems]
        if any(what.startswith("not a readable") for what in found):
            return problems
    if parts == 1 and data.read(1):
        problems.append("something behind the pickle")
    return problems


def _is_magic(data: io.BytesIO) -> bool:
    """Whether the first pickle is the number that old checkpoints begin with; the stream is rewound."""
    try:
        operations = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    except Exception:  # the same pickle is judged, and reported, right after
        operations = []
    data.seek(0)
    return [argument for name, argument in operations if name not in ("PROTO", "STOP")] == [_MAGIC]
