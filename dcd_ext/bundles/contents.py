"""The files of a bundle, a folder or a zip, read where they are: nothing is extracted and no link is followed."""

import functools
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from dcd_ext.errors import UserError

# a zip that unpacks to more than this many times its size was made to fill a disk
_MAX_RATIO = 200
# the largest file that is read, and the largest one of such a zip
_MAX_READ, _MAX_READ_OF_BOMB = 4 * 2**30, 64 * 2**20
# header of the zip field that holds a second name, which some programs use instead of the first
_UNICODE_PATH = (0x7075).to_bytes(2, "little")


class Contents:
    """Files of one bundle.

    Attributes:
        name: name of the bundle: its folder, or the top folder of the zip.
        files: path inside the bundle (with ``/``) -> function that opens it for reading bytes.
        sizes: path inside the bundle -> bytes.
        problems: what is wrong with the paths themselves (``path: what``): traversal, links, duplicates.
        max_read: bytes up to which a file is read.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, Callable[[], IO[bytes]]] = {}
        self.sizes: dict[str, int] = {}
        self.problems: list[str] = []
        self.max_read = _MAX_READ
        self._folded: set[str] = set()

    def add(self, path: str, size: int, opener: Callable[[], IO[bytes]]) -> None:
        """Register one file; names that differ only in case overwrite each other on many systems."""
        if path.casefold() in self._folded:
            self.problems.append(f"{path}: the same name twice: which of the two is used depends on the program")
        self._folded.add(path.casefold())
        self.files[path], self.sizes[path] = opener, size

    def read(self, path: str) -> bytes:
        """The whole file; refused if it is damaged (a zip checks each file's CRC-32), or too large."""
        if self.sizes[path] > self.max_read:
            expected = f"at most {self.max_read} bytes"
            raise UserError("file too large", path, expected, self.sizes[path], "read it yourself")
        try:
            with self.files[path]() as file:
                return file.read()
        except Exception as e:  # zipfile and the decompressors raise a dozen types
            raise UserError("damaged file", path, "what was packed", e, "download the bundle again") from e


def open_contents(path: Path) -> Contents:
    """Look into a folder or zip; anything else is refused."""
    if path.is_dir():
        return _from_folder(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as e:  # zipfile raises a dozen types for a damaged directory
        raise UserError("not a bundle", path, "a folder or a zip", e, "check the path or download it again") from e
    return _from_zip(path, archive)


def _from_folder(root: Path) -> Contents:
    contents = Contents(root.resolve().name)

    def unreadable(error: OSError) -> None:
        where = Path(os.fsdecode(error.filename)).relative_to(root).as_posix()
        contents.problems.append(f"{where}: a folder that cannot be listed; what is in it may still run")

    for folder, folders, files in os.walk(root, onerror=unreadable):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            inside = path.relative_to(root).as_posix()
            # a link inside the bundle is its target's content once more
            target = os.readlink(path) if path.is_symlink() else ""
            if target and (os.path.isabs(target) or not path.resolve().is_relative_to(root.resolve())):
                contents.problems.append(f"{inside}: a link that leads out of the bundle, to {target}")
            elif path.is_file():
                contents.add(inside, path.stat().st_size, functools.partial(io.FileIO, path))
            elif not target and not path.is_dir():
                contents.problems.append(f"{inside}: neither a file nor a folder")
    return contents


def _from_zip(path: Path, archive: zipfile.ZipFile) -> Contents:
    # not ZipInfo.is_dir, which raises an IndexError for an entry without a name
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    tops = {entry.filename.split("/")[0] for entry in entries if "/" in entry.filename}
    # a bundle's zip holds one folder; names are shown below it, as in the unpacked bundle
    top = tops.pop() if len(tops) == 1 and all("/" in e.filename for e in entries) else ""
    contents = Contents(top if top not in ("", "..") else path.stem)
    for entry in entries:
        inside = entry.filename.removeprefix(f"{top}/") if top not in ("", "..") else entry.filename
        contents.problems.extend(f"{inside}: {problem}" for problem in _entry_problems(entry))
        contents.add(inside, entry.file_size, functools.partial(archive.open, entry))
    if sum(e.file_size for e in entries) > _MAX_RATIO * max(path.stat().st_size, 1):
        contents.max_read = _MAX_READ_OF_BOMB
        contents.problems.append(f"{path.name}: unpacks to more than {_MAX_RATIO} times its size")
    return contents


def _entry_problems(entry: zipfile.ZipInfo) -> list[str]:
    name = entry.orig_filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    absolute = name.startswith(("/", "\\")) or any(":" in part for part in parts[:1])
    problems = {
        "no name": not name,
        "path traversal: '..' in the name of a zip entry": ".." in parts,
        "path traversal: absolute name of a zip entry": absolute,
        "backslash or control character in the name of a zip entry": "\\" in name or not name.isprintable(),
        "a second name in the zip's unicode-path field, which some programs use instead": _UNICODE_PATH in entry.extra,
        "a link in a zip": stat.S_ISLNK(entry.external_attr >> 16),
        "encrypted, so it cannot be read": entry.flag_bits & 1,
    }
    return [problem for problem, found in problems.items() if found]
