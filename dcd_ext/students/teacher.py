"""What a teacher bundle in the Model Zoo's format says: its configs, its network, its weights. Nothing of it runs."""

import json
import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from dcd_ext.bundles.export import load_torchscript
from dcd_ext.distill.teacher_check import recorded_scores
from dcd_ext.errors import UserError
from dcd_ext.networks import seeded
from dcd_ext.students.plain import Definitions, changed, follow
from dcd_ext.weights import load_weights

_SUFFIXES = (".json", ".yaml", ".yml")
_NETWORK_KEYS = ("network_def", "network")
# arguments of an inferer that name a device
_DEVICES = ("device", "sw_device")
# arguments of MONAI's networks that had no effect and are no longer taken
_REMOVED = {"SwinUNETR": ("img_size",)}
_LOADS = re.compile(r"\bCheckpointLoader$|\btorch\.load\(|\bload_state_dict\(|\bload_from\(|\bcopy_model_state\(")
_CODE = re.compile(r"\bscripts\.|\bimport scripts\b|\bfrom scripts\b")


class TeacherBundle:
    """A bundle whose network is to be distilled.

    Args:
        root: its folder.
        train_file: name of its training config below ``configs``; default ``train`` with any suffix.
        network_key: id of the network's definition; default: the first of the usual ones.
        trust: whether its expressions and ``scripts`` may run.

    Raises:
        UserError: if there is no training config, or no network definition in it that can be built.
    """

    def __init__(
        self, root: Path, train_file: str | None = None, network_key: str | None = None, trust: bool = False
    ) -> None:
        self.root = root.resolve()
        # arguments for another process
        self.reopen = {"root": root, "train_file": train_file, "network_key": network_key, "trust": trust}
        folder = self.root / "configs"
        files = sorted(f for f in folder.glob("*") if f.suffix in _SUFFIXES)
        self.configs = {f.name: changed(_read(f), _without_removed) for f in files if f.stem != "metadata"}
        self.train_file = self._train_file(folder, train_file)
        metadata = folder / "metadata.json"
        self.metadata = _read(metadata) if metadata.is_file() else {}
        trusted = self.root if trust else None
        self.definitions = Definitions(self.configs[self.train_file], folder / self.train_file, trusted)
        self.network_key = self._network_key(network_key)
        self.definition: dict[str, Any] = self.definitions.parser.get(self.network_key)
        self.network: nn.Module = self.build(self.definition)
        if not isinstance(self.network, nn.Module):
            what, found = f"'{self.network_key}' is no network", type(self.network).__name__
            raise UserError(what, folder / self.train_file, "a network", found, "pass --network_key KEY")
        kinds = {type(module) for module in self.network.modules()}
        if nn.Conv2d in kinds and nn.Conv3d not in kinds:
            where, name = f"{folder / self.train_file}, {self.network_key}", type(self.network).__name__
            raise UserError("a 2D network", where, "3D convolutions", name, "take another bundle: 2D is not supported")

    def build(self, definition: dict[str, Any]) -> Any:
        """A network in evaluation mode, with seeded initial weights."""
        with seeded():
            network = self.definitions.build(definition, self.network_key)
        return network.eval() if isinstance(network, nn.Module) else network

    def argument(self, name: str) -> Any:
        """The value of an argument of the network's definition."""
        return self.definitions.build(self.definition[name], f"{self.network_key}::{name}")

    def inferer(self) -> Any:
        """That of the inference config, on the CPU."""
        definitions = self._inference()
        key = follow(definitions.parser, "inferer")
        definition = definitions.parser.get(key)
        if not isinstance(definition, dict):
            found, expected = repr(definition)[:80] if definition else "none", "a dictionary with _target_ at 'inferer'"
            raise UserError("no inferer", definitions.file, expected, found, "use --reduction_factor")
        return definitions.build({k: v for k, v in definition.items() if k not in _DEVICES}, key)

    def transform_argument(self, name: str, argument: str) -> Any:
        """An argument of the first transform of a kind in the inference config; None if there is none."""
        definitions = self._inference()
        waiting: list[Any] = [definitions.parser.get("preprocessing")]
        while waiting:
            entry = waiting.pop(0)
            if isinstance(entry, str) and entry.startswith("@"):
                entry = definitions.parser.get(follow(definitions.parser, entry[1:]))
            if isinstance(entry, dict) and str(entry.get("_target_")).endswith(name):
                return definitions.build(entry.get(argument), f"{name} {argument}")
            children = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
            waiting.extend(children)
        return None

    def _inference(self) -> Definitions:
        name = next((n for n in self.configs if Path(n).stem == "inference"), None)
        if name is None:
            where = self.root / "configs"
            raise UserError("no inference config", where, "inference.json or .yaml", "none", "use --reduction_factor")
        return Definitions(self.configs[name], self.root / "configs" / name, self.definitions.trusted)

    @property
    def imports_code(self) -> bool:
        """Whether the configs name something of the bundle's ``scripts``."""
        return bool(_CODE.search(json.dumps(self.configs, default=str)))

    @property
    def missing_packages(self) -> list[str]:
        """Packages that its metadata name and that are not installed."""
        groups = [self.metadata.get(f"{kind}_packages_version") for kind in ("required", "optional")]
        named = {str(name) for group in groups if isinstance(group, dict) for name in group}
        return sorted(name for name in named if not any(distributions(name=name)))

    @property
    def loading(self) -> list[str]:
        """Ids of entries of the training config that load weights, which would be those of the wide network."""
        return sorted({key for key, text in _texts(self.configs[self.train_file]) if _LOADS.search(text)})

    @property
    def channels(self) -> int:
        """Number of input channels, from the network's definition or the metadata."""
        for name in ("in_channels", "input_channels"):
            if name in self.definition:
                return int(self.argument(name))
        if isinstance(number := self._input.get("num_channels"), int):
            return number
        where = self.root / "configs" / "metadata.json"
        step = "add it to the metadata"
        raise UserError("unknown number of input channels", where, "num_channels of the input", "none", step)

    @property
    def spatial_shape(self) -> list[Any]:
        """``spatial_shape`` of the input in the metadata; may hold formulas, may be empty."""
        shape = self._input.get("spatial_shape")
        return list(shape) if isinstance(shape, list) else []

    @property
    def _input(self) -> dict[str, Any]:
        """What the metadata say of the first input; empty if they do not."""
        found: Any = self.metadata
        for key in ("network_data_format", "inputs", None):
            if not isinstance(found, dict):
                return {}
            found = next(iter(found.values()), {}) if key is None else found.get(key)
        return found if isinstance(found, dict) else {}

    def load_weights(self, file: Path | None = None) -> None:
        """Load the bundle's weights into :attr:`network`, strictly; :attr:`scores` are what is recorded of them."""
        step = "pass --weights FILE"
        candidates = [file] if file else [self.root / "models" / name for name in ("model.pt", "model.ts")]
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            where = " or ".join(map(str, candidates))
            raise UserError("the teacher has no weights", where, "a file", "none", f"download them, or {step}")
        self.scores: Any = next((scores for scores, _ in recorded_scores(path, self.root)), {})
        if not _is_torchscript(path):
            load_weights(self.network, path, step)
            return
        try:
            self.network.load_state_dict(load_torchscript(path).state_dict())
        except (RuntimeError, ValueError) as error:
            found = " ".join(str(error).split())[:160]
            raise UserError("weights do not fit the network", path, "TorchScript of it", found, step) from error

    def _train_file(self, folder: Path, name: str | None) -> str:
        wanted = [name] if name else [f"train{suffix}" for suffix in _SUFFIXES]
        found = next((n for n in wanted if n in self.configs), None)
        if found is None:
            there = ", ".join(self.configs) or "none"
            raise UserError("no training config", folder, " or ".join(wanted), there, "pass --config_file NAME")
        return found

    def _network_key(self, given: str | None) -> str:
        key = given or next((k for k in _NETWORK_KEYS if self._defines(k)), None) or self.definitions.trained_network()
        if key is not None and self._defines(key):
            return follow(self.definitions.parser, key)
        expected = f"a dictionary with _target_ at {given or ' or '.join(_NETWORK_KEYS)}"
        content = self.definitions.parser.get(given or _NETWORK_KEYS[0])
        found = "none" if content is None else repr(content)[:80]
        step = "pass --network_key KEY" + (", or write it so in a copy" if found[1:2] == "$" else "")
        raise UserError("no network definition", self.definitions.file, expected, found, step)

    def _defines(self, key: str) -> bool:
        content = self.definitions.parser.get(follow(self.definitions.parser, key))
        # a wrapper, such as DistributedDataParallel, has a module
        return isinstance(content, dict) and "_target_" in content and "module" not in content


def _read(path: Path) -> dict[str, Any]:
    try:
        content = ConfigParser.load_config_file(path)
    except Exception as error:  # PyYAML and json raise errors of their own
        found = " ".join(str(error).split())[:160]
        raise UserError("unreadable config", path, "JSON or YAML", found, "correct it") from error
    if not isinstance(content, dict):
        raise UserError("unreadable config", path, "a dictionary", type(content).__name__, "correct it")
    return content


def _texts(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a config, with the id of its entry; entries that are switched off are left out."""
    if isinstance(config, str):
        yield key, config
    elif isinstance(config, (dict, list)) and "_disabled_" not in config:
        for name, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from _texts(value, f"{key}::{name}" if key else str(name))


def _without_removed(entry: Any) -> Any:
    """What MONAI of today can build."""
    if not isinstance(entry, dict):
        return entry
    removed = _REMOVED.get(str(entry.get("_target_")).split(".")[-1], ())
    return {key: value for key, value in entry.items() if key not in removed}


def _is_torchscript(path: Path) -> bool:
    """Whether a file holds code beside its tensors; both kinds are ZIP archives, and ``.pt`` may be either."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
    except RuntimeError:
        return False
    return any(name.startswith("code/") for name in reader.get_all_records())
