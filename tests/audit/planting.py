"""Plant things in a copy of an honest bundle, and look what the audit says. Nothing planted ever runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dcd_ext.audit.bundle import audit
from dcd_ext.audit.findings import Finding
from tests.conftest import read_json

INFERENCE = "configs/inference.json"


def edit(bundle: Path, file: str = INFERENCE, **values: Any) -> None:
    """Set top-level keys of a config."""
    path = bundle / file
    path.write_text(json.dumps({**read_json(path), **values}), "utf-8")


def write(bundle: Path, file: str, content: str | bytes) -> None:
    """Write a file of the bundle."""
    path = bundle / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def found(bundle: Path, file: str, key: str = "") -> list[Finding]:
    """Findings for a file whose key is ``key`` or lies below it."""
    return [f for f in audit(bundle) if f.file == file and (f.key == key or f.key.startswith(f"{key}::") or not key)]


class Harmful:
    """Pickles as a call of ``os.system``."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)
