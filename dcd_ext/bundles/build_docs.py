"""Generate a bundle's ``metadata.json`` and ``docs/README.md``."""

import re
from copy import deepcopy
from typing import Any

import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles.sources import BUNDLE_SRC, ROOT, load
from dcd_ext.networks import count_parameters

_PACKAGES = ("nibabel", "pytorch-ignite", "dynamic_network_architectures")


def build_metadata(task: dict[str, Any], role: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """``metadata.json``: a release record with the tested versions and the measured scores."""
    versions = dict(re.findall(r"^([\w.-]+)==([^\s+]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    about, common = task["metadata"], {**task["common"], **role["common"]}
    packages = [*_PACKAGES, *(["scipy"] if "nnunet" in task else [])]  # imported networks: for resampling
    base = load(BUNDLE_SRC / "base" / "metadata.json")
    return {
        **{k: base[k] for k in ("schema", "version", "changelog")},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {name: versions[name] for name in packages},
        "name": f"{about['title']}, {role['metadata']['title']}",
        "description": f"{about['title']}: {role['readme']['role_text']}",
        **{k: base[k] for k in base if k not in ("schema", "version", "changelog", "eval_metrics", "references")},
        **{k: about[k] for k in ("data_source", "data_type", "image_classes", "label_classes")},
        "pred_classes": f"{len(about['outputs'])} channels, one per class",
        "eval_metrics": results,
        "references": [*about["references"], *base["references"]],
        "network_data_format": {
            "inputs": {"image": _data_format(about["inputs"], common, format="magnitude", modality="MR")},
            "outputs": {"pred": _data_format(about["outputs"], common, format="segmentation")},
        },
    }


def _data_format(channels: list[str], common: dict[str, Any], **kind: str) -> dict[str, Any]:
    patch = {"type": "image", "spatial_shape": common["patch_size"], "dtype": "float32", "is_patch_data": True}
    names = {str(i): name for i, name in enumerate(channels)}
    return {**patch, **kind, "num_channels": len(channels), "value_range": [], "channel_def": names}


def build_readme(name: str, task: dict[str, Any], role: dict[str, Any], configs: dict[str, Any]) -> str:
    """``docs/README.md``; the parameter count is taken from the network itself."""
    train = configs["train"]
    parser = ConfigParser(deepcopy(train))
    with torch.device("meta"):  # nothing is computed with it
        parameters = f"{count_parameters(parser.get_parsed_content('network_def')):,}"
    values = {
        **train,
        **task["metadata"],
        "network": "A residual-encoder U-Net (nnU-Net's)",
        "dataset_dir": f"prepared/{task['readme']['task_name']}",
        **task["readme"],
        **role["readme"],
        "title": f"{task['metadata']['title']}: {role['metadata']['title']}",
        "name": name,
        "parameters": parameters,
        "memory": _memory(configs["metadata"].get("memory")),
        "performance": _performance(configs["metadata"]["eval_metrics"], parameters),
        "widths": ", ".join(map(str, parser.get_parsed_content("network_def::features_per_stage"))),
        "patch": " × ".join(map(str, train["patch_size"])),
        "pixdim": " × ".join(f"{p:g}" for p in train["pixdim"]),
        "references": "\n".join(f"- {r}" for r in configs["metadata"]["references"]),
    }
    return (BUNDLE_SRC / "base" / "README.md").read_text(encoding="utf-8").format(**values)


def _memory(stated: dict[str, Any] | None) -> str:
    """The bound of a shipped bundle in a sentence, or how to set one."""
    if not stated:
        return "`dcd predict --max_ram GIB` refuses images that could need more memory."
    channels, *sides = stated["image"]
    image = f"{channels} channel(s) of {' × '.join(map(str, sides))} voxels"
    return (
        f"`dcd predict` takes at most {stated['bound_gib']:g} GiB for {image} (OpenVINO, {stated['threads']} threads, "
        "no background to crop); `--max_ram GIB` keeps it below another bound, or refuses the image."
    )


def _performance(measured: dict[str, Any], parameters: str) -> str:
    """Dice table of the trained weights, or the sentence that there are none."""
    if not measured:
        return "No trained weights yet: the first command below trains them, the third one scores them."
    classes = list(measured["dice"])
    scores = [f"{measured['dice'][c]:.4f} ± {measured['dice_sem'][c]:.4f}" for c in classes]
    header = ["parameters", *(f"Dice {c}" if c != "mean" else "mean Dice" for c in classes)]
    rows = [header, ["---"] * len(header), [parameters, *scores]]
    which = f"{measured['cases']} test cases, on which nothing was trained or selected,"
    precision = measured["weights_precision"]
    scored = f"by the weights in `models/model.pt` ({precision}, SHA-256 `{measured['weights_sha256'][:16]}…`)"
    about = f"Mean ± standard error over the {which} {scored}, against the untouched label files:"
    options = dict(measured.get("trained_with", {}))
    files = " and ".join(f"`configs/{file}`" for file in options.pop("files", []))
    settings = "; ".join(f"`{key}`: `{value}`" for key, value in options.items())
    trained = ["", f"Trained with {files}, and of their entries changed: {settings}."] if options else []
    return "\n".join([about, "", *(f"| {' | '.join(row)} |" for row in rows), *trained])
