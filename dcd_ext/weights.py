"""Save and read checkpoints and load weights: finite, strictly, and without running what a pickle holds."""

import os
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dcd_ext.errors import UserError
from dcd_ext.io import write_atomically

# what DDP, torch.compile and Lightning put in front of every key
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "network.")
# attribute of a saved state dict; MONAI and torch, which load it, see the tensors only
_ORIGIN = "origin"
# how the file begins that Git leaves where Git LFS is not installed
_LFS = b"version https://git-lfs"


def read_checkpoint(path: str | os.PathLike, next_step: str, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """The dictionary that ``torch.save`` wrote to ``path``, on the CPU, read with ``weights_only=True``.

    It is refused, with ``next_step``, if it is missing, unreadable, no dictionary, or has a tensor that is not finite.
    ``allowed`` are classes and functions that it may name, besides those of tensors.
    """
    if not os.path.isfile(path):
        raise UserError("weights not found", path, "a checkpoint", "no such file", next_step)
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of some foreign files before it refuses them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch's own text advises to read the file without weights_only
        expected = "tensors only (weights_only=True)"
        raise UserError("weights cannot be read", path, expected, _what_is_there(path, e), next_step) from e
    if not isinstance(state, dict):
        raise UserError("weights cannot be read", path, "a dictionary", type(state).__name__, next_step)
    require_finite(state, path, next_step)
    return state


def save_checkpoint(checkpoint: Any, path: str | os.PathLike) -> None:
    """``torch.save``, atomically. The checkpoint should hold tensors, numbers and strings only (``weights_only``).

    Refused if the file cannot be written, or a tensor is not finite; a file that exists is then left as it was.
    """
    require_finite(checkpoint, path, "nothing was written; lower --learning_rate and start again")

    def write(name: str) -> None:
        # torch's own writer hides the operating system's reason, such as "No space left on device", and with a file of
        # Python's it is the context of torch's complaint that the archive is not complete
        with open(name, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    write_atomically(path, write)


def save_weights(weights: Mapping[str, torch.Tensor], path: str | os.PathLike, origin: Mapping[str, Any]) -> None:
    """A plain state dict that says where it comes from, in an attribute, as torch keeps versions of modules in one."""
    state = OrderedDict(weights)
    state.__dict__[_ORIGIN] = dict(origin)
    save_checkpoint(state, path)


def origin_of(path: str | os.PathLike) -> Any:
    """What :func:`save_weights` was told, or a checkpoint has under ``run``; None if that is not known."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # of an older format, or damaged: for those who load it to say
        return None
    return state.get("run") if isinstance(state, dict) and "run" in state else getattr(state, _ORIGIN, None)


def require_finite(checkpoint: Any, path: str | os.PathLike, next_step: str) -> None:
    """Refuse a checkpoint that holds NaN or infinity, naming the first such tensor."""
    for name, tensor in _tensors(checkpoint):
        if tensor.is_meta or tensor.is_quantized:
            found = "a tensor without values" if tensor.is_meta else "a quantized tensor"
            raise UserError("weights cannot be read", f"{path}, key {name}", "floating-point numbers", found, next_step)
        if not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            found = f"{count} of {tensor.numel()} values NaN or infinite"
            raise UserError("weights are not finite", f"{path}, key {name}", "finite numbers", found, next_step)


def _tensors(item: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested dictionaries and lists, with their keys."""
    if isinstance(item, torch.Tensor):
        if item.layout is torch.strided:  # others are no weights, which those say who load them
            yield name, item
    elif isinstance(item, dict | list | tuple):
        for key, value in item.items() if isinstance(item, dict) else enumerate(item):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _what_is_there(path: str | os.PathLike, error: Exception) -> str:
    """What a file that torch refuses is, as far as it can be told."""
    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            return "a pointer of Git LFS (get the file with: git lfs pull)"
    if not zipfile.is_zipfile(path):
        return f"half of a file, or one of another kind ({os.path.getsize(path):,} bytes)"
    return "objects that would run code" if "weights_only" in str(error).lower() else type(error).__name__


def load_weights(network: nn.Module, path: str | os.PathLike, next_step: str) -> None:
    """Load ``path`` into ``network``; every key and shape has to fit, or it is refused with ``next_step``.

    The file is a state dict, plain or under the key ``model``, ``state_dict`` or ``network`` (as in
    ``checkpoint_last.pt``).
    """
    state = read_checkpoint(path, next_step)
    for key in ("state_dict", "model", "network"):
        if isinstance(state.get(key), dict):
            state = state[key]
    load_state(network, state, path, next_step)


def load_state(network: nn.Module, state: Mapping[str, Any], path: str | os.PathLike, next_step: str) -> None:
    """Load the state dict that was read from ``path``, as :func:`load_weights` does."""
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
