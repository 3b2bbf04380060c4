"""Build bundles from ``bundle_src``, for the shipped tasks and for a user's own.

Each bundle is complete and works when copied away alone, so what bundles share is written once, in ``bundle_src``:
``base`` (workflows), ``tasks`` (one small file per data set), ``roles`` (teacher, student, student_dcd) and ``methods``
(other distillation losses, overlays of the DCD student). The fragments are merged by the rules of MONAI's
``ConfigParser`` (``#`` addresses an entry, ``+`` extends one) and every ``%`` macro is replaced by what it names.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import dcd_ext
from dcd_ext.bundles.task_file import check_task_file
from dcd_ext.errors import UserError
from dcd_ext.networks import count_parameters

__all__ = ["BUNDLE_SRC", "build_bundle", "find_task", "roles", "shipped_tasks"]

_PACKAGE = Path(dcd_ext.__file__).parent
# the sources lie beside the package in a clone, and inside it in a wheel (see setup.py)
_ROOT = _PACKAGE / "_sources" if (_PACKAGE / "_sources").is_dir() else _PACKAGE.parent
BUNDLE_SRC = _ROOT / "bundle_src"
# sections that only serve as sources of macros
_SOURCES = ("fragments", "distillation")
# configs that are the same in every bundle
_UNCHANGED = ("evaluate", "fast_cpu", "inference_trt", "multi_gpu_train")
_PACKAGES = ("nibabel", "pytorch-ignite", "dynamic_network_architectures")


def shipped_tasks() -> list[str]:
    """Names of the tasks in ``bundle_src``; ``brats24.quickstart.json`` is an overlay of one."""
    return sorted(p.stem for p in (BUNDLE_SRC / "tasks").glob("*.json") if "." not in p.stem)


def roles() -> list[str]:
    """What a task's bundles are: student, student_dcd, teacher."""
    return sorted(p.stem for p in (BUNDLE_SRC / "roles").glob("*.json"))


def find_task(name: str) -> Path:
    """The task file that a path or the name of a shipped task means.

    Raises:
        UserError: if there is none, or its name cannot be the first part of a bundle's name.
    """
    path = BUNDLE_SRC / "tasks" / f"{name}.json" if name in shipped_tasks() else Path(name)
    if not path.is_file():
        expected = f"a task file or one of {', '.join(shipped_tasks())}"
        raise UserError("no such task", name, expected, "neither", "see docs/add_a_task.md")
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.json", path.name):
        raise UserError("unusable name", path, "letters, digits, '_', '-' and .json", path.name, "rename the file")
    return path


def load(path: Path) -> dict[str, Any]:
    """One JSON fragment."""
    return ConfigParser.load_config_file(path)


def load_task(path: Path) -> dict[str, Any]:
    """A task file, checked."""
    try:
        task = load(path)
    except (OSError, ValueError) as error:
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
    extend, path = key.startswith("+"), key.lstrip("+").split("#")
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


def build_config(name: str, task: dict[str, Any], role: dict[str, Any]) -> dict[str, Any]:
    """``train.json`` or ``inference.json`` of one bundle."""
    sources = {
        "fragments": {**load(BUNDLE_SRC / "base" / "fragments.json"), **task["fragments"]},
        "distillation": task["distillation"],
    }
    base = load(BUNDLE_SRC / "base" / f"{name}.json")
    # the knobs a user turns come first, right after the paths
    position = list(base).index("device")
    common = {**task["common"], **(task["train"] if name == "train" else {}), **role["common"]}
    keys = [*list(base)[:position], *common, *[k for k in list(base)[position:] if k not in common]]
    merged = merge(sources, base, common, *(role["train"] if name == "train" else []))
    return prune({k: merged[k] for k in [*keys, *merged] if k not in _SOURCES})


def build_metadata(task: dict[str, Any], role: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """``metadata.json``: a release record with the tested versions and the measured scores."""
    versions = dict(re.findall(r"^([\w.-]+)==([^\s+]+)", (_ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    about, common = task["metadata"], {**task["common"], **role["common"]}
    base = load(BUNDLE_SRC / "base" / "metadata.json")
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
        "eval_metrics": results,
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


def _results(task_file: Path, name: str) -> dict[str, Any]:
    """Measured scores of a shipped bundle; a user's task may have the name of a shipped one."""
    path = BUNDLE_SRC / "results" / f"{name}.json"
    return load(path) if path.is_file() and task_file.parent == BUNDLE_SRC / "tasks" else {}


def build_readme(name: str, task: dict[str, Any], role: dict[str, Any], configs: dict[str, Any]) -> str:
    """``docs/README.md``; the parameter count is taken from the network itself."""
    train = configs["train"]
    parser = ConfigParser(load_only_network(train))
    values = {
        **task["readme"],
        **role["readme"],
        "title": f"{task['metadata']['title']}: {role['metadata']['title']}",
        "name": name,
        "parameters": f"{count_parameters(parser.get_parsed_content('network_def')):,}",
        "widths": ", ".join(map(str, parser.get_parsed_content("network_def::features_per_stage"))),
        "patch": " × ".join(map(str, train["patch_size"])),
        "pixdim": " × ".join(f"{p:g}" for p in train["pixdim"]),
        "iterations": train["iterations_per_epoch"],
        "epochs": train["max_epochs"],
        "channels": train["in_channels"],
        "image_classes": task["metadata"]["image_classes"],
        "label_classes": task["metadata"]["label_classes"],
        "references": "\n".join(f"- {r}" for r in configs["metadata"]["references"]),
    }
    return (BUNDLE_SRC / "base" / "README.md").read_text(encoding="utf-8").format(**values)


def load_only_network(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that the network definition refers to."""
    names = ("in_channels", "num_classes", "features", "n_blocks", "strides", "reduction_factor", "min_features")
    return {name: deepcopy(config[name]) for name in (*names, "deep_supervision", "network_def")}


def build_bundle(task_file: Path, role_name: str) -> dict[str, str]:
    """All text files of one bundle.

    Args:
        task_file: its stem is the task's name; overlays ``<name>.*.json`` beside it become configs of the bundle.
        role_name: one of :func:`roles`.

    Returns:
        Path below the folder of bundles -> content.

    Raises:
        UserError: if the task is incomplete or contradicts itself.
    """
    task, role = load_task(task_file), load(BUNDLE_SRC / "roles" / f"{role_name}.json")
    name = f"{task_file.stem}_segmentation_{role_name}"
    train = build_config("train", task, role)
    configs = {
        "metadata": {
            **build_metadata(task, role, _results(task_file, name)),
            # what dcd verify rebuilds the bundle from
            "generated_from": {"task": task_file.stem, "role": role_name},
        },
        "train": train,
        "inference": build_config("inference", task, role),
        **{name: load(BUNDLE_SRC / "base" / f"{name}.json") for name in _UNCHANGED},
    }
    for overlay in sorted(task_file.parent.glob(f"{task_file.stem}.*.json")):
        configs[overlay.name.split(".")[1]] = load(overlay)
    if "kd_loss" in train:
        configs.update({f"methods/{p.stem}": load(p) for p in sorted((BUNDLE_SRC / "methods").glob("*.json"))})
    files = {f"configs/{n}.json": to_json(c) for n, c in configs.items()}
    files["configs/logging.conf"] = (BUNDLE_SRC / "base" / "logging.conf").read_text(encoding="utf-8")
    files["docs/README.md"] = build_readme(name, task, role, configs)
    files["docs/data_license.txt"] = (
        "The bundle's code and configuration: Apache License 2.0, see LICENSE. No data are part of it.\n"
        f"Data its weights are trained on: {task['readme']['data_license']}\n"
    )
    files["LICENSE"] = (_ROOT / "LICENSE").read_text(encoding="utf-8")
    files["models/.gitkeep"] = ""
    return {f"{name}/{path}": text for path, text in files.items()}
