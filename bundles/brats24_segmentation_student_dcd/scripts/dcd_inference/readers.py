"""Formats that no reader of MONAI takes by itself."""

from __future__ import annotations

import os
from collections.abc import Sequence

from monai.data import NibabelReader
from monai.transforms.io.array import SUPPORTED_READERS
from monai.utils import ensure_tuple


class FreeSurferReader(NibabelReader):
    """MONAI's reader by nibabel for ``.mgz`` and ``.mgh``."""

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        """Whether all files are FreeSurfer's."""
        return all(str(file).lower().endswith((".mgz", ".mgh")) for file in ensure_tuple(filename))


def register_readers() -> None:
    """Let every ``LoadImage`` that is made from now on read them; MONAI's table of readers is open for more."""
    SUPPORTED_READERS["freesurferreader"] = FreeSurferReader
