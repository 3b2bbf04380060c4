"""What a bundle's ``metadata.json`` says about its channels, its labels and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

__all__ = ["read_channels", "read_labels", "read_origin"]


def read_channels(bundle: Path) -> list[str]:
    """Names of the input channels, in channel order.

    Args:
        bundle: the bundle's folder.

    Raises:
        UserError: if its metadata cannot be read.
    """
    return list(_channel_def(bundle, "inputs", "image").values())


def read_labels(bundle: Path) -> list[str]:
    """Names of the labels 1, 2, … of the label map, without the background.

    Args:
        bundle: the bundle's folder.

    Raises:
        UserError: if its metadata cannot be read, or labels are not numbered without a gap.
    """
    labels = _channel_def(bundle, "outputs", "pred")
    if list(labels) != list(range(len(labels))) or len(labels) < 2:
        # a DICOM segmentation numbers its segments 1, 2, …
        raise UserError("labels with gaps", bundle, "0, 1, 2, …", list(labels), "correct its metadata.json")
    return list(labels.values())[1:]


def read_origin(bundle: Path) -> tuple[str, str]:
    """Authors and version, which a DICOM segmentation names.

    Args:
        bundle: the bundle's folder.

    Raises:
        UserError: if its metadata cannot be read, or one of the two is missing.
    """
    with _metadata(bundle, "authors and version") as metadata:
        origin = metadata.get("authors"), metadata.get("version")
    for key, text in zip(("authors", "version"), origin, strict=True):
        if not isinstance(text, str) or not text.strip():
            found = "none" if text is None else repr(text)
            raise UserError(f"bundle without {key}", _path(bundle), f'a text "{key}"', found, "add it to the file")
    return origin


def _channel_def(bundle: Path, side: str, key: str) -> dict[int, str]:
    with _metadata(bundle, f"{side}.{key}.channel_def") as metadata:
        names = metadata["network_data_format"][side][key]["channel_def"]
        return {int(index): names[index] for index in sorted(names, key=int)}


def _path(bundle: Path) -> Path:
    return bundle / "configs" / "metadata.json"


@contextmanager
def _metadata(bundle: Path, expected: str) -> Iterator[Any]:
    try:
        yield json.loads(_path(bundle).read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError("no bundle", _path(bundle), expected, found, "pass --bundle <folder>") from error
