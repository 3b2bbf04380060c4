"""What an audit finds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing in a bundle that is not on the allow-list.

    Attributes:
        file: path inside the bundle.
        key: config key, section, line or record inside the file; "" for the file as a whole.
        what: what is wrong, one line.
    """

    file: str
    key: str
    what: str

    def __str__(self) -> str:
        """``file: key: what``."""
        return ": ".join(part for part in (self.file, self.key, self.what) if part)
