"""Read checkpoints and load weights, strictly and without running what a pickle holds."""

import os
import zipfile
from typing import Any

import torch
from torch import nn

from dcd_ext.errors import UserError

# what DDP, torch.compile and Lightning put in front of every key
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "network.")
# how the file begins that Git leaves where Git LFS is not installed
_LFS = b"version https://git-lfs"


def read_checkpoint(path: str | os.PathLike, next_step: str) -> dict[str, Any]:
    """The dictionary that ``torch.save`` wrote to ``path``, on the CPU, read with ``weights_only=True``.

    Args:
        path: the file.
        next_step: what the user does when it cannot be read.

    Raises:
        UserError: if the file is missing, unreadable or holds no dictionary.
    """
    if not os.path.isfile(path):
        raise UserError("weights not found", path, "a checkpoint", "no such file", next_step)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch's own text advises to read the file without weights_only
        expected = "tensors only (weights_only=True)"
        raise UserError("weights cannot be read", path, expected, _what_is_there(path, e), next_step) from e
    if not isinstance(state, dict):
        raise UserError("weights cannot be read", path, "a dictionary", type(state).__name__, next_step)
    return state


def _what_is_there(path: str | os.PathLike, error: Exception) -> str:
    """What a file that torch refuses is, as far as it can be told."""
    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            return "a pointer of Git LFS (get the file with: git lfs pull)"
    if not zipfile.is_zipfile(path):
        return f"half of a file, or one of another kind ({os.path.getsize(path):,} bytes)"
    return "objects that would run code" if "weights_only" in str(error).lower() else type(error).__name__


def load_weights(network: nn.Module, path: str | os.PathLike, next_step: str) -> None:
    """Load ``path`` into ``network``; every key and shape has to fit.

    The file is a state dict, plain or under the key ``model`` or ``network`` (as in ``checkpoint_last.pt``).

    Args:
        network: receives the weights.
        path: file written by ``torch.save``.
        next_step: what the user does when the file is missing or does not fit.

    Raises:
        UserError: if the file is missing or unreadable, or any key or shape differs.
    """
    state = read_checkpoint(path, next_step)
    for key in ("model", "network"):
        if isinstance(state.get(key), dict):
            state = state[key]
    for prefix in _WRAPPER_PREFIXES:
        if state and all(str(key).startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    expected = {key: describe(value) for key, value in network.state_dict().items()}
    found = {str(key): describe(value) for key, value in state.items()}
    wrong = sorted({key for key, _ in set(expected.items()) ^ set(found.items())})
    if wrong:
        raise UserError(
            f"weights do not fit the network ({len(wrong)} keys differ)",
            f"{path}, key {wrong[0]}",
            expected.get(wrong[0], "no such key"),
            found.get(wrong[0], "no such key"),
            next_step,
        )
    network.load_state_dict(state)


def describe(value: Any) -> str:
    """A tensor's shape, and what would keep it from taking a parameter's place."""
    if not isinstance(value, torch.Tensor):
        return f"a value of type {type(value).__name__}"
    kind = "" if value.is_floating_point() else f" of {value.dtype}"
    layout = "" if value.layout == torch.strided else f", {value.layout}"
    return f"shape {tuple(value.shape)}{kind}{layout}"
