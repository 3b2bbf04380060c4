"""SHA-256 of every file of a bundle, in the format of ``sha256sum``, and a zip that is the same whenever it is made."""

import filecmp
import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from dcd_ext.bundles.contents import Contents
from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_text

SUMS = "SHA256SUMS"
# as in the model zoo: addresses of files that lie outside of the zip
LARGE_FILES = "large_files.yml"
# a zip stores local time; the model zoo uses this moment, too
_MOMENT = (2022, 5, 30, 0, 0, 0)
# what using a bundle writes into its folder: results, and the hub's records of a download
_LATER = ("eval/", ".cache/huggingface/")
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def bundle_files(root: Path) -> list[Path]:
    """All files of a folder, in an order that no system or locale changes."""
    return sorted((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.relative_to(root).as_posix())


def write_sums(root: Path, elsewhere: Mapping[str, str] | None = None) -> None:
    """Write ``SHA256SUMS`` into a bundle's folder; ``sha256sum -c SHA256SUMS`` in there checks it.

    ``elsewhere`` maps the paths of files that are downloaded later to their SHA-256.
    """
    sums = {p.relative_to(root).as_posix(): sha256(p) for p in bundle_files(root) if p.name != SUMS}
    sums.update(elsewhere or {})
    write_text("".join(f"{sums[path]}  {path}\n" for path in sorted(sums)), root / SUMS)


def write_zip(root: Path, path: Path) -> None:
    """Zip a folder below its own name: same content, same bytes.

    Nothing is compressed: weights hardly shrink, and another zlib would write other bytes.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in bundle_files(root):
            entry = zipfile.ZipInfo(f"{root.name}/{file.relative_to(root).as_posix()}", _MOMENT)
            entry.create_system = 3  # Unix, also when made elsewhere
            entry.external_attr = 0o100644 << 16
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=False) as target:
                shutil.copyfileobj(source, target, 2**20)


def check_sums(contents: Contents, elsewhere: frozenset[str] = frozenset()) -> int:
    """Compare every file with ``SHA256SUMS``, but those ``elsewhere``, still to be downloaded; returns their number.

    One that differs, is missing, or is not listed is refused by its name.
    """
    again = "download the bundle again"
    if SUMS not in contents.files:
        raise UserError("no checksums", SUMS, "a packed bundle", "none", "pack it: dcd pack")
    listed: dict[str, str] = {}
    for line in contents.read(SUMS).decode("utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError("damaged file", SUMS, "<sha256>  <file> in each line", repr(line[:80]), again)
        listed[match[2]] = match[1]
    unlisted = [f for f in sorted(contents.files.keys() - {SUMS} - listed.keys()) if not f.startswith(_LATER)]
    for file in unlisted:
        raise UserError("file without a checksum", file, f"only files of {SUMS}", "one more", again)
    for file in sorted(listed.keys() - contents.files.keys() - elsewhere):
        raise UserError("missing file", file, listed[file], "no such file", again)
    there = sorted(listed.keys() & contents.files.keys())
    for file in there:
        found = hashlib.sha256(contents.read(file)).hexdigest()
        if found != listed[file]:
            raise UserError("file differs from what was packed", file, listed[file], found, again)
    return len(there)


def check_zip(root: Path, path: Path) -> None:
    """Compare a zip with what :func:`write_zip` makes of its content, byte by byte, with a :class:`UserError`."""
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder, "expected.zip")
        write_zip(root, expected)
        if not filecmp.cmp(path, expected, shallow=False):
            raise UserError("zip differs from what was packed", path, "the same bytes", "others", "download it again")
