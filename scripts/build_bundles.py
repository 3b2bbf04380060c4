"""Generate the bundles in ``bundles/`` from the fragments in ``bundle_src/``; ``--check`` only compares.

Each bundle is complete and works when copied away alone, so what bundles share is written once, in ``bundle_src``:
``base`` (workflows), ``tasks`` (one small file per data set), ``roles`` (teacher, student, student_dcd) and ``methods``
(other distillation losses, overlays of the DCD student). The fragments are merged by the rules of MONAI's
``ConfigParser`` (``::`` addresses an entry, ``+`` extends one) and every ``%`` macro is replaced by what it names.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from dcd_ext.bundles.task_file import check_task_file
from dcd_ext.errors import UserError
from dcd_ext.io import write_text
from dcd_ext.networks import count_parameters

ROOT = Path(__file__).resolve().parents[1]
# sections that only serve as sources of macros
_SOURCES = ("fragments", "distillation")
_PACKAGES = ("nibabel", "pytorch-ignite", "dynamic_network_architectures")


def load(path: Path) -> dict[str, Any]:
    """One JSON fragment."""
    return ConfigParser.load_config_file(path)


def load_task(path: Path) -> dict[str, Any]:
    """A task file, checked."""
    try:
        task = load(path)
    except ValueError as error:
        raise UserError("no task file", path, "JSON", error, "see docs/add_a_task.md") from error
    check_task_file(task, path)
    return task


def merge(*fragments: dict[str, Any]) -> dict[str, Any]:
    """Merge fragments from left to right and resolve their macros after each."""
    config: dict[str, Any] = {}
    for fragment in fragments:
        for key, value in deepcopy(fragment).items():
            _merge_entry(config, key, value)
        parser = ConfigParser(config)
        parser.resolve_macro_and_relative_ids()
        resolved: Any = parser.config
        config = resolved
    return config


def _merge_entry(config: dict[str, Any], key: str, value: Any) -> None:
    extend, path = key.startswith("+"), key.lstrip("+").split("::")
    for part in path[:-1]:
        config = config[part]
    if extend and isinstance(value, list):
        config[path[-1]] = [*config[path[-1]], *value]
    elif extend:
        config[path[-1]] = {**config[path[-1]], **value}
    else:
        config[path[-1]] = value


def prune(config: Any) -> Any:
    """Drop entries that a task switches off for good (``"_disabled_": true``) and the switch of those it keeps."""
    if isinstance(config, list):
        return [prune(v) for v in config if not (isinstance(v, dict) and v.get("_disabled_") is True)]
    if isinstance(config, dict):
        return {k: prune(v) for k, v in config.items() if not (k == "_disabled_" and v is False)}
    return config


def to_json(config: dict[str, Any]) -> str:
    """JSON for people: indented, but a list of numbers stays on one line."""
    text = json.dumps(config, indent=4, ensure_ascii=False)
    return re.sub(r"\[[-\d.,\s]+\]", lambda m: "[" + " ".join(m[0][1:-1].split()) + "]", text) + "\n"


def without_flips(transforms: list[dict[str, Any]], mirror_axes: list[int]) -> list[dict[str, Any]]:
    """Leave out the flips along axes that the task does not mirror."""
    return [t for t in transforms if t["_target_"] != "RandFlipd" or t["spatial_axis"] in mirror_axes]


def sources_of(source: Path, name: str, task: dict[str, Any]) -> dict[str, Any]:
    """What the macros of one config name: shared fragments, those of this config and those of the task."""
    fragments = load(source / "base" / "fragments.json")
    return {
        "fragments": {**fragments, **fragments[name], **task["fragments"]},
        "distillation": task["distillation"],
    }


def build_evaluate(source: Path, task: dict[str, Any]) -> dict[str, Any]:
    """``evaluate.json`` of a task: its keys reach into ``train.json``, so only macros are resolved."""
    overlay = {**task["evaluate"], **load(source / "base" / "evaluate.json")}
    merged = merge(sources_of(source, "evaluate", task), {"overlay": overlay})
    return prune(merged["overlay"])


def build_config(source: Path, name: str, task: dict[str, Any], role: dict[str, Any]) -> dict[str, Any]:
    """``train.json`` or ``inference.json`` of one bundle."""
    sources = sources_of(source, name, task)
    base = load(source / "base" / f"{name}.json")
    if name == "train":
        base["train"]["random_transforms"] = without_flips(
            base["train"]["random_transforms"], task["fragments"]["mirror_axes"]
        )
    # what a user changes first comes first, right after the paths
    position = list(base).index("device")
    common = {**task["common"], **(task["train"] if name == "train" else {}), **role["common"]}
    keys = [*list(base)[:position], *common, *[k for k in list(base)[position:] if k not in common]]
    merged = merge(sources, base, common, *(role["train"] if name == "train" else []))
    return prune({k: merged[k] for k in [*keys, *merged] if k not in _SOURCES})


def build_metadata(source: Path, name: str, task: dict[str, Any], role: dict[str, Any]) -> dict[str, Any]:
    """``metadata.json``: a release record; versions come from ``constraints.txt``, scores from measured results."""
    measured = source / "results" / f"{name}.json"
    versions = dict(re.findall(r"^([\w.-]+)==([^\s+]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    about, common = task["metadata"], {**task["common"], **role["common"]}
    base = load(source / "base" / "metadata.json")
    patch = {"type": "image", "spatial_shape": common["patch_size"], "dtype": "float32", "is_patch_data": True}
    return {
        **{k: base[k] for k in ("schema", "version", "changelog")},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {name: versions[name] for name in _PACKAGES},
        "name": f"{about['title']}, {role['metadata']['title']}",
        "description": f"{about['title']}: {role['readme']['role_text']}",
        **{k: base[k] for k in base if k not in ("schema", "version", "changelog", "eval_metrics", "references")},
        **{k: about[k] for k in ("data_source", "data_type", "image_classes", "label_classes")},
        "pred_classes": f"{len(about['outputs'])} channels, one per class",
        "eval_metrics": load(measured) if measured.is_file() else {},
        "references": [*about["references"], *base["references"]],
        "network_data_format": {
            "inputs": {
                "image": {
                    **patch,
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": common["in_channels"],
                    "value_range": [],
                    "channel_def": {str(i): n for i, n in enumerate(about["inputs"])},
                }
            },
            "outputs": {
                "pred": {
                    **patch,
                    "format": "segmentation",
                    "num_channels": common["num_classes"],
                    "value_range": [],
                    "channel_def": {str(i): n for i, n in enumerate(about["outputs"])},
                }
            },
        },
    }


def build_readme(source: Path, name: str, task: dict[str, Any], role: dict[str, Any], train: dict[str, Any]) -> str:
    """``docs/README.md``; the parameter count is taken from the network itself."""
    parser = ConfigParser(load_only_network(train))
    parameters = f"{count_parameters(parser.get_parsed_content('network_def')):,}"
    metadata = build_metadata(source, name, task, role)
    values = {
        **task["readme"],
        **role["readme"],
        "title": f"{task['metadata']['title']}: {role['metadata']['title']}",
        "name": name,
        "parameters": parameters,
        "performance": performance(metadata["eval_metrics"], parameters),
        "widths": ", ".join(map(str, parser.get_parsed_content("network_def::features_per_stage"))),
        "patch": " × ".join(map(str, train["patch_size"])),
        "pixdim": " × ".join(f"{p:g}" for p in train["pixdim"]),
        "iterations": train["iterations_per_epoch"],
        "epochs": train["max_epochs"],
        "channels": train["in_channels"],
        "image_classes": task["metadata"]["image_classes"],
        "label_classes": task["metadata"]["label_classes"],
        "references": "\n".join(f"- {r}" for r in metadata["references"]),
    }
    return (source / "base" / "README.md").read_text(encoding="utf-8").format(**values)


def performance(measured: dict[str, Any], parameters: str) -> str:
    """Dice table of the trained weights, or the sentence that there are none."""
    if not measured:
        return "No trained weights yet: the first command below trains them, the third one scores them."
    classes = list(measured["dice"])
    scores = [f"{measured['dice'][c]:.4f} ± {measured['dice_sem'][c]:.4f}" for c in classes]
    header = ["parameters", *(f"Dice {c}" if c != "mean" else "mean Dice" for c in classes)]
    rows = [header, ["---"] * len(header), [parameters, *scores]]
    about = (
        f"Mean ± standard error over the {measured['cases']} cases of fold {measured['fold']}, which also chose the "
        "epoch, scored against the untouched label files:"
    )
    return "\n".join([about, "", *(f"| {' | '.join(row)} |" for row in rows)])


def load_only_network(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that the network definition refers to."""
    names = "in_channels num_classes features n_blocks strides reduction_factor min_features network_def"
    return {name: deepcopy(config[name]) for name in names.split()}


def build_bundle(source: Path, task_name: str, role_name: str) -> dict[str, str]:
    """All text files of one bundle: relative path -> content."""
    task, role = load_task(source / "tasks" / f"{task_name}.json"), load(source / "roles" / f"{role_name}.json")
    name = f"{task_name}_segmentation_{role_name}"
    train = build_config(source, "train", task, role)
    configs = {
        "metadata": build_metadata(source, name, task, role),
        "train": train,
        "inference": build_config(source, "inference", task, role),
        "evaluate": build_evaluate(source, task),
        "fast_cpu": load(source / "base" / "fast_cpu.json"),
        "inference_trt": load(source / "base" / "inference_trt.json"),
        "multi_gpu_train": load(source / "base" / "multi_gpu_train.json"),
    }
    for overlay in sorted((source / "tasks").glob(f"{task_name}.*.json")):
        configs[overlay.name.split(".")[1]] = load(overlay)
    if "kd_loss" in train:
        configs.update({f"methods/{p.stem}": load(p) for p in sorted((source / "methods").glob("*.json"))})
    files = {f"configs/{n}.json": to_json(c) for n, c in configs.items()}
    files["configs/logging.conf"] = (source / "base" / "logging.conf").read_text(encoding="utf-8")
    files["docs/README.md"] = build_readme(source, name, task, role, train)
    files["docs/data_license.txt"] = (
        "The bundle's code and configuration: Apache License 2.0, see LICENSE. No data are part of it.\n"
        f"Data its weights are trained on: {task['readme']['data_license']}\n"
    )
    files["LICENSE"] = (ROOT / "LICENSE").read_text(encoding="utf-8")
    files["models/.gitkeep"] = ""
    return {f"{name}/{path}": text for path, text in files.items()}


def build_all(source: Path) -> dict[str, str]:
    """All files of all bundles, one bundle per task and role."""
    files: dict[str, str] = {}
    for task in sorted(p.stem for p in (source / "tasks").glob("*.json") if "." not in p.stem):
        for role in sorted(p.stem for p in (source / "roles").glob("*.json")):
            files.update(build_bundle(source, task, role))
    return files


def differences(files: dict[str, str], output: Path) -> list[str]:
    """Paths below ``output`` that are missing, differ, or should not be there (weights and results aside)."""
    wrong = [p for p, t in files.items() if not (output / p).is_file() or (output / p).read_text("utf-8") != t]
    kept = [p for d in ("configs", "docs") for p in output.glob(f"*/{d}/**/*") if p.is_file()]
    return wrong + [str(p.relative_to(output)) for p in kept if p.relative_to(output).as_posix() not in files]


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=ROOT / "bundle_src", help="folder of the fragments")
    parser.add_argument("--output", type=Path, default=ROOT / "bundles", help="folder of the bundles")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    args = parser.parse_args(argv)
    try:
        files = build_all(args.source)
        wrong = differences(files, args.output)
        if args.check and wrong:
            command = "python scripts/build_bundles.py"
            what = f"{len(wrong)} generated file(s) differ from bundle_src"
            raise UserError(what, wrong[0], f"what {command.split()[1]} writes", "something else", f"run: {command}")
    except UserError as e:
        print(e, file=sys.stderr)
        return 1
    if args.check:
        print(f"{len(files)} files are up to date")
        return 0
    for path in wrong:
        if path in files:
            write_text(files[path], args.output / path)
        else:
            (args.output / path).unlink()
    print(f"{len(files)} files, {len(wrong)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
