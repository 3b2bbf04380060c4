"""Checks that build the network: weights, shapes, exports that agree, MONAI's workflow properties."""

import json
import re
import warnings
import zipfile
from typing import Any

import torch
from monai.bundle import ConfigWorkflow, verify_net_in_out
from monai.data import load_net_with_metadata

from dcd_ext.bundles.checks import Subject
from dcd_ext.bundles.export import FORMATS, compare
from dcd_ext.bundles.inspect_archives import FILE_OPERATORS, torchscript_names
from dcd_ext.errors import UserError
from dcd_ext.networks import count_parameters
from dcd_ext.weights import read_checkpoint

_TRAIN = "train it, or take a packed bundle"


def check_weights(subject: Subject) -> str:
    """A flat state dict of tensors that fits strictly, and the parameter count the README states."""
    state = read_checkpoint(subject.need("models/model.pt", _TRAIN), _TRAIN)
    wrong = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        where, kind = f"models/model.pt, {wrong[0]}", type(state[wrong[0]])
        raise UserError("not a flat state dict", where, "a tensor", kind, "pack")
    parameters = count_parameters(subject.bundle.network())
    stated = re.search(r"([\d,]+)\s+parameters", (subject.bundle.root / "docs" / "README.md").read_text("utf-8"))
    if stated is None or stated[1] != f"{parameters:,}":
        found = stated[1] if stated else "no number"
        raise UserError("parameter count", "docs/README.md", f"{parameters:,}", found, "pack the bundle again")
    return f"{parameters:,} parameters, {len(state)} tensors"


def check_network(subject: Subject) -> str:
    """Output channels and type are those of the metadata, by MONAI, on a small input."""
    configs, (_, _, *sides) = subject.bundle.root / "configs", subject.bundle.smallest_input()
    meta, config = str(configs / "metadata.json"), str(configs / "inference.json")
    override: Any = {"_meta_::network_data_format::inputs::image::spatial_shape": sides}
    verify_net_in_out("network_def", meta_file=meta, config_file=config, device="cpu", **override)
    return f"as the metadata says, for an input of {sides} voxels"


def _check_export(subject: Subject, name: str) -> str:
    """An export computes what ``model.pt`` does, on other shapes and batches, too."""
    path = subject.need(f"models/{FORMATS[name].file}", f"export it: dcd export --formats {name}")
    subject.need("models/model.pt", _TRAIN)
    difference = compare(path, FORMATS[name], subject.bundle, "export it again")
    return f"largest difference {difference:.1e} on further shapes and batches"


def check_torchscript(subject: Subject) -> str:
    """``model.ts`` has no operator that reaches files, holds the bundle's own configs, and agrees with ``model.pt``."""
    path = subject.need("models/model.ts", "export it: dcd export")
    with zipfile.ZipFile(path) as archive:
        reaching = sorted(FILE_OPERATORS.intersection(torchscript_names(archive)))
    if reaching:
        raise UserError("file operator", "models/model.ts", "none", reaching[0], "do not load it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 announces the end of TorchScript
        _, metadata, extra = load_net_with_metadata(str(path), more_extra_files=("inference.json",))
    inference = subject.bundle.read("configs/inference.json")
    if metadata != subject.bundle.metadata or json.loads(extra["inference.json"]) != inference:
        raise UserError("other configs inside", "models/model.ts", "those of the bundle", "others", "export it again")
    return _check_export(subject, "torchscript")


def check_onnx(subject: Subject) -> str:
    """``model.onnx``, which is optional, computes what ``model.pt`` does."""
    return _check_export(subject, "onnx")


def check_properties(subject: Subject) -> str:
    """The config entries that MONAI's workflows, MONAI Label and the Deploy SDK ask for, by MONAI."""
    root, count = subject.bundle.root, 0
    for kind, names in (("train", ["train"]), ("train", ["train", "evaluate"]), ("inference", ["inference"])):
        files = [str(root / "configs" / f"{name}.json") for name in names]
        workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(root))
        for name, entry in workflow.properties.items():
            try:
                workflow.parser[entry["id"]]
                count += 1
            except (KeyError, ValueError, IndexError) as e:
                if entry["required"]:
                    where, expected = f"configs/{names[-1]}.json", f"an entry {entry['id']}"
                    raise UserError(f"property {name} missing", where, expected, "none", "add it") from e
    return f"{count} entries"


NETWORK_CHECKS = (check_weights, check_network, check_torchscript, check_onnx, check_properties)
