"""Bring the cases that several processes have scored together."""

from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist

from dcd_ext.errors import UserError


def gather_cases(cases: Mapping[str, Any]) -> dict[str, Any]:
    """The cases of all processes of a distributed evaluation, in the order of their names, the same in every process.

    Every process has to call it, with its share; without :mod:`torch.distributed` it only sorts.

    Raises:
        UserError: if two processes have the same case.
    """
    # typed Any, because ignite's annotation covers tensors and numbers, too
    shares: Any = idist.all_gather(dict(cases))
    gathered: dict[str, Any] = {}
    for share in shares:
        if twice := sorted(gathered.keys() & share.keys()):
            raise UserError(f"case {twice[0]} in two processes", "evaluation", next_step="shard the cases")
        gathered |= share
    return dict(sorted(gathered.items()))
