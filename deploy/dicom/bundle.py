"""What a bundle's ``metadata.json`` says about its channels and labels."""

from __future__ import annotations

import json
from pathlib import Path

from dcd_ext.errors import UserError

__all__ = ["read_channels", "read_labels"]


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


def _channel_def(bundle: Path, side: str, key: str) -> dict[int, str]:
    path = bundle / "configs" / "metadata.json"
    try:
        names = json.loads(path.read_text("utf-8"))["network_data_format"][side][key]["channel_def"]
        return {int(index): names[index] for index in sorted(names, key=int)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError("no bundle", path, f"{side}.{key}.channel_def", found, "pass --bundle <folder>") from error
