"""Bring the cases that several processes have scored together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from monai.utils import string_list_all_gather

from dcd_ext.errors import UserError

__all__ = ["gather_cases"]


def gather_cases(cases: Mapping[str, Any]) -> dict[str, Any]:
    """The cases of all processes of a distributed evaluation, in the order of their names.

    Every process has to call it; without :mod:`torch.distributed` it only sorts.

    Args:
        cases: this process's share, case -> an entry of JSON types.

    Returns:
        All of them, the same in every process.

    Raises:
        UserError: if two processes have the same case.
    """
    # as text: floats survive it exactly, and nothing received is unpickled; JSON holds no raw tab, MONAI's delimiter
    texts = string_list_all_gather([json.dumps(item) for item in cases.items()])
    items = [json.loads(text) for text in texts if text]  # "" stands for a process without a case
    gathered = dict(sorted(items))
    if len(gathered) != len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError("case twice", twice, "each case in one process", "several", "shard the cases, do not repeat")
    return gathered
