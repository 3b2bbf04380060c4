"""Compare a saved state with the object it is for: torch's optimizers and schedulers take over anything."""

from typing import Any

import torch

from dcd_ext.weights import describe


def require_same_form(own: Any, saved: Any, place: str) -> None:
    """Refuse a saved state that is built otherwise than the object's own.

    An optimizer's own state is empty before its first step; then the saved one is not looked into.

    Raises:
        ValueError: with the first entry that differs.
    """
    if isinstance(own, dict) and own:
        if not isinstance(saved, dict) or saved.keys() != own.keys():
            raise ValueError(f"{place}: other entries")
        for key, value in own.items():
            require_same_form(value, saved[key], f"{place}.{key}")
    elif isinstance(own, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(own):
            raise ValueError(f"{place}: another list")
        for number, value in enumerate(own):
            require_same_form(value, saved[number], f"{place}[{number}]")
    elif isinstance(own, torch.Tensor):
        if describe(saved) != describe(own):
            raise ValueError(f"{place}: {describe(saved)} instead of {describe(own)}")
    elif isinstance(own, int | float) and not isinstance(own, bool):
        if not isinstance(saved, int | float) or not abs(saved) < float("inf"):
            raise ValueError(f"{place}: no number")
    elif own is not None and not isinstance(saved, type(own)):
        raise ValueError(f"{place}: a value of type {type(saved).__name__}")
