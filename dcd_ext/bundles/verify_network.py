"""Checks that build the network: weights, shapes, exports that agree, MONAI's workflow properties."""

from __future__ import annotations

import json
import re
import warnings

import torch
from monai.bundle import ConfigWorkflow
from monai.data import load_net_with_metadata

from dcd_ext.bundles.checks import NotApplicable, Subject
from dcd_ext.bundles.export import TS_TOLERANCE, largest_difference
from dcd_ext.bundles.onnx_export import ONNX_TOLERANCE, run_onnx
from dcd_ext.bundles.readme import run_commands
from dcd_ext.errors import UserError
from dcd_ext.networks import count_parameters
from dcd_ext.weights import read_checkpoint

__all__ = ["NETWORK_CHECKS", "check_commands"]

_TRAIN = "train it, or take a packed bundle"


def check_weights(subject: Subject) -> str:
    """A flat state dict of tensors that fits strictly, and the parameter count the README states."""
    state = read_checkpoint(subject.need("models/model.pt", _TRAIN), _TRAIN)
    wrong = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise UserError(
            "not a flat state dict", f"models/model.pt, {wrong[0]}", "a tensor", type(state[wrong[0]]), "pack"
        )
    parameters = count_parameters(subject.bundle.network())
    stated = re.search(r"([\d,]+)\s+parameters", (subject.bundle.root / "docs" / "README.md").read_text("utf-8"))
    if stated is None or stated[1] != f"{parameters:,}":
        found = stated[1] if stated else "no number"
        raise UserError("parameter count", "docs/README.md", f"{parameters:,}", found, "pack the bundle again")
    return f"{parameters:,} parameters, {len(state)} tensors"


def check_network(subject: Subject) -> str:
    """Output channels and type are those of the metadata (on a small input)."""
    bundle = subject.bundle
    network = bundle.parser().get_parsed_content("network_def").eval()
    spec = next(iter(bundle.metadata["network_data_format"]["outputs"].values()))
    image = bundle.random_input()
    with torch.no_grad():
        output = network(image)
    expected = (1, spec["num_channels"], *image.shape[2:])
    if tuple(output.shape) != expected or str(output.dtype) != f"torch.{spec['dtype']}":
        raise UserError(
            "network output", "configs/metadata.json", (*expected, spec["dtype"]), output.shape, "correct it"
        )
    return f"{tuple(image.shape)} -> {tuple(output.shape)}"


def check_torchscript(subject: Subject) -> str:
    """``model.ts`` loads, holds the bundle's own configs, and computes what ``model.pt`` does, on other shapes, too."""
    path = subject.need("models/model.ts", "export it: dcd export")
    subject.need("models/model.pt", _TRAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 announces the end of TorchScript
        exported, metadata, extra = load_net_with_metadata(str(path), more_extra_files=("inference.json",))
    if metadata != subject.bundle.metadata or json.loads(extra["inference.json"]) != subject.bundle.read(
        "configs/inference.json"
    ):
        raise UserError("other configs inside", "models/model.ts", "those of the bundle", "others", "export it again")
    worst = largest_difference(path, lambda _, image: exported(image), subject.bundle)
    if not worst < TS_TOLERANCE:
        raise UserError("export differs", "models/model.ts", f"within {TS_TOLERANCE}", worst, "export it again")
    return f"largest difference {worst:.1e} on further shapes and batches"


def check_onnx(subject: Subject) -> str:
    """``model.onnx`` computes what ``model.pt`` does, on other shapes and batches, too."""
    path = subject.need("models/model.onnx", "optional")
    subject.need("models/model.pt", _TRAIN)
    worst = largest_difference(path, run_onnx, subject.bundle)
    if not worst < ONNX_TOLERANCE:
        raise UserError("export differs", "models/model.onnx", f"within {ONNX_TOLERANCE}", worst, "export it again")
    return f"largest difference {worst:.1e} on further shapes and batches"


def check_properties(subject: Subject) -> str:
    """The config entries that MONAI's workflows, MONAI Label and the Deploy SDK ask for."""
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
                    raise UserError(
                        f"property {name} missing", files[-1], f"an entry {entry['id']}", "none", "add it"
                    ) from e
    return f"{count} entries"


def check_commands(subject: Subject) -> str:
    """Every command of the README runs."""
    if subject.dataset_dir is None:
        raise NotApplicable("no --dataset_dir given")
    if not subject.packed:
        raise NotApplicable("only a packed bundle's README stands for itself")
    done = list(run_commands(subject.bundle.root, subject.dataset_dir))
    ran = sum(what == "ran" for _, what in done)
    return f"{ran} of {len(done)} ran" + "".join(f"; {what}: {c[:40]}…" for c, what in done if what != "ran")


NETWORK_CHECKS = (check_weights, check_network, check_torchscript, check_onnx, check_properties, check_commands)
