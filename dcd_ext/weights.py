"""Read checkpoints and load weights, strictly and without running what a pickle holds."""

import os
from typing import Any

import torch
from torch import nn

from dcd_ext.errors import UserError

# what DDP, torch.compile and Lightning put in front of every key
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "network.")


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
    except Exception as e:
        expected = "tensors only (weights_only=True)"
        raise UserError("weights cannot be read", path, expected, type(e).__name__, next_step) from e
    if not isinstance(state, dict):
        raise UserError("weights cannot be read", path, "a dictionary", type(state).__name__, next_step)
    return state


def load_weights(network: nn.Module, path: str | os.PathLike, next_step: str) -> None:
    """Load ``path`` into ``network``; every key and shape has to fit.

    The file is a state dict, plain or under the key ``model``, ``state_dict`` or ``network`` (as in
    ``checkpoint_last.pt``).

    Args:
        network: receives the weights.
        path: file written by ``torch.save``.
        next_step: what the user does when the file is missing or does not fit.

    Raises:
        UserError: if the file is missing or unreadable, or any key or shape differs.
    """
    state = read_checkpoint(path, next_step)
    for key in ("state_dict", "model", "network"):
        if isinstance(state.get(key), dict):
            state = state[key]
    for prefix in _WRAPPER_PREFIXES:
        if state and all(str(key).startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    expected = {key: str(tuple(value.shape)) for key, value in network.state_dict().items()}
    found = {str(key): _shape(value) for key, value in state.items()}
    wrong = sorted({key for key, _ in set(expected.items()) ^ set(found.items())})
    if wrong:
        raise UserError(
            f"weights do not fit the network ({len(wrong)} keys differ)",
            f"{path}, key {wrong[0]}",
            f"shape {expected.get(wrong[0], 'none')}",
            f"shape {found.get(wrong[0], 'none')}",
            next_step,
        )
    network.load_state_dict(state)


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else f"of a {type(value).__name__}"
