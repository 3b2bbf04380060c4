"""What checkpoints, other pickles, TorchScript archives and NumPy files refer to, determined without loading them."""

import itertools
import pickletools
import zipfile
from collections import Counter
from typing import IO

import torch

from dcd_ext.bundles.inspect_code import names_used

# what is larger is not read; the record of names in a checkpoint has about 100 kB, TorchScript's code the same
_MAX_RECORD, _MAX_CODE, _MAX_PICKLE = 8 * 2**20, 2**20, 512 * 2**20
_MAX_OPCODES = 500_000
# operators of TorchScript that read or write files
FILE_OPERATORS = frozenset({"torch.save", "torch.from_file", "torch.load", "ops.aten.save", "ops.aten.from_file"})


def describe(file: IO[bytes]) -> str:
    """What a seekable file would execute or import when loaded, as one line; what cannot be read raises any error."""
    head = file.read(128)
    file.seek(0)
    if not zipfile.is_zipfile(file):
        if head.startswith(b"\x93NUMPY"):
            return "NumPy array of objects: a pickle" if b"O'" in head else "NumPy array of numbers"
        return _names_of_pickle(file)
    archive = zipfile.ZipFile(file)
    records = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in records:
        return _describe_torchscript(archive)
    if "data.pkl" not in records:
        return f"a zip of {len(records)} files, not looked into"
    if max(e.file_size for e in archive.infolist() if e.filename.endswith(".pkl")) > _MAX_RECORD:
        raise ValueError("too large")
    file.seek(0)
    names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    return f"checkpoint; names that weights_only=True refuses: {', '.join(names) or 'none'}"


def _names_of_pickle(file: IO[bytes]) -> str:
    """Names in a bare pickle, or in several one after the other, as PyTorch wrote before version 1.6."""
    if file.seek(0, 2) > _MAX_PICKLE:
        raise ValueError("too large")
    file.seek(0)
    names = _globals_of_pickle(file)
    while file.read(1) == b"\x80":
        file.seek(-1, 1)
        names |= _globals_of_pickle(file)
    return f"pickle; names it looks up: {', '.join(sorted(names)) or 'none'}"


def _globals_of_pickle(file: IO[bytes]) -> set[str]:
    """One pickle's names, "?" where a part of one is computed; torch's function knows torch's own opcodes only."""
    names: set[str] = set()
    pushed, memo = ["?", "?"], dict[int, str]()
    name = ""
    for opcode, argument, _ in itertools.islice(pickletools.genops(file), _MAX_OPCODES):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            names.add(str(argument).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            names.add(".".join(pushed[-2:]))
        if name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif name.endswith("PUT"):
            memo[int(argument or 0)] = pushed[-1]
        elif name.endswith("GET"):
            pushed.append(memo.get(int(argument or 0), "?"))
        else:
            pushed.append(argument if isinstance(argument, str) and "UNICODE" in name else "?")
    if name != "STOP":
        raise ValueError("too many opcodes")
    return names


def torchscript_names(archive: zipfile.ZipFile) -> Counter[str]:
    """How often the code of a TorchScript archive uses each operator and attribute."""
    names: Counter[str] = Counter()
    for entry in archive.infolist():
        if "/code/" in entry.filename and entry.filename.endswith(".py"):
            if entry.file_size > _MAX_CODE:
                raise ValueError("too large")
            names.update(names_used(archive.read(entry).decode("utf-8")))
    return names


def _describe_torchscript(archive: zipfile.ZipFile) -> str:
    names = torchscript_names(archive)
    operators = {name for name in names if name.startswith(("torch.", "ops."))}
    extra = sorted(n.partition("/extra/")[2] for n in archive.namelist() if "/extra/" in n)
    reaching = sorted(operators & FILE_OPERATORS) or ["none"]
    return (
        f"TorchScript with {len(operators)} kinds of operators; those that reach files: {', '.join(reaching)}; "
        f"extra files: {', '.join(extra) or 'none'}"
    )
