"""A bundle's folder: its configs, its metadata, its network."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from dcd_ext.errors import UserError, first_cause
from dcd_ext.readers import check_content, parse_json
from dcd_ext.weights import load_weights


class BundleFolder:
    """What packing, exporting and verifying need to know of a bundle.

    A folder without readable ``configs/metadata.json`` and ``configs/inference.json`` is refused.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.name = self.root.name
        self.metadata: dict[str, Any] = self.read("configs/metadata.json")
        self._inference = self.read("configs/inference.json")

    def read(self, file: str) -> Any:
        """A JSON file of the bundle; ``metadata.json`` and ``inference.json`` are checked by their schemas."""
        path, step = self.root / file, "check the path of the bundle"
        try:
            content = parse_json(path.read_bytes())
        except (OSError, ValueError, RecursionError) as e:
            raise UserError("not a bundle", path, "a JSON file", e, step) from e
        if path.stem in ("metadata", "inference"):
            check_content(content, path.stem, path, "bundle", step)
        return content

    @property
    def weights(self) -> Path:
        return self.root / "models" / "model.pt"

    @property
    def version(self) -> str:
        return str(self.metadata.get("version", "0.0.0"))

    def parser(self) -> ConfigParser:
        """``inference.json``, ready to build from; code of the bundle is found, as in ``monai.bundle run``."""
        if str(self.root) not in sys.path:
            sys.path.append(str(self.root))
        parser = ConfigParser(json.loads(json.dumps(self._inference)))
        parser["bundle_root"] = str(self.root)
        return parser

    def build(self, entry: str) -> Any:
        """An entry of ``inference.json``, built; refused if that fails."""
        try:
            return self.parser().get_parsed_content(entry)
        except Exception as e:  # a config can raise anything
            where, step = f"{self.root / 'configs' / 'inference.json'}, {entry}", "take a bundle of this collection"
            raise UserError("the bundle cannot be built", where, "a working config", first_cause(e), step) from e

    def network(self, weights: Path | None = None) -> nn.Module:
        """The network in evaluation mode, with a checkpoint that is loaded strictly; default ``models/model.pt``."""
        network = self.build("network_def")
        if not isinstance(network, nn.Module):
            where, step = self.root / "configs" / "inference.json", "take a bundle of this collection"
            raise UserError("no network", f"{where}, network_def", "a network", type(network).__name__, step)
        next_step = "train the bundle; weights of another width need the --reduction_factor they were trained with"
        load_weights(network, weights or self.weights, next_step)
        return network.eval()

    def smallest_input(self, times: int = 2, batch: int = 1) -> tuple[int, ...]:
        """Shape (B, M, X, Y, Z) of a small input the network accepts.

        ``times`` is the side of the deepest feature map: an instance norm needs more than one voxel.
        """
        inputs = self.metadata.get("network_data_format", {}).get("inputs", {})
        spec: dict[str, Any] = next(iter(inputs.values()), {})
        if not spec.keys() >= {"num_channels", "spatial_shape"}:
            where, expected = self.root / "configs" / "metadata.json", "num_channels and spatial_shape of an input"
            raise UserError("the bundle does not say what it takes", where, expected, "none", "complete the file")
        sides = spec["spatial_shape"]
        if strides := self._inference.get("strides"):
            sides = [times * math.prod(factors) for factors in zip(*strides, strict=True)]
        return (batch, spec["num_channels"], *sides)

    def random_input(self, times: int = 2, batch: int = 1) -> torch.Tensor:
        """Seeded noise of the shape of :meth:`smallest_input`."""
        return torch.randn(self.smallest_input(times, batch), generator=torch.Generator().manual_seed(0))
