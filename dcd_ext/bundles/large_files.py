"""Weights stored outside the zip, as in the model zoo: ``large_files.yml`` holds their addresses."""

from pathlib import Path
from urllib.parse import urlsplit

import yaml

from dcd_ext.errors import UserError
from dcd_ext.io import sha256, write_text

LARGE_FILES = "large_files.yml"


def move_out(root: Path, target: Path, url: str) -> dict[str, str]:
    """Move a bundle's ``models`` to ``target``, which is to be uploaded to ``url``, and write ``large_files.yml``.

    Returns:
        Path inside the bundle, which is the path below ``target``, too -> SHA-256.
    """
    sums = {}
    for file in sorted((root / "models").glob("model.*")):
        path = file.relative_to(root).as_posix()
        sums[path] = sha256(file)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        file.replace(target / path)
    urls = {path: f"{url.rstrip('/')}/{path}" for path in sums}
    entries = [{"path": p, "url": urls[p], "hash_val": sums[p], "hash_type": "sha256"} for p in sums]
    write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False), root / LARGE_FILES)
    return sums


def check_address(url: str) -> None:
    """Refuse, with a UserError, an address that is neither https nor this machine's."""
    parts = urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
        raise UserError("address of the weights", url, "https://...", "something else", "use an encrypted address")


def listed_files(content: bytes) -> frozenset[str]:
    """Paths that a ``large_files.yml`` lists."""
    entries = (yaml.safe_load(content) or {}).get("large_files") or []
    return frozenset(str(entry.get("path")) for entry in entries)
