"""Build bundles from ``bundle_src``, for the shipped tasks and for a user's own."""

import math
import re
import sys
from pathlib import Path
from typing import Any

from dcd_ext.bundles.build_docs import build_metadata, build_readme
from dcd_ext.bundles.sources import BUNDLE_SRC, PACKAGE, ROOT, load, merge, prune, read_task_file, to_json

# sections that only serve as sources of macros
_SOURCES = ("fragments", "distillation")
# configs that are the same in every bundle
_UNCHANGED = ("fast_cpu", "inference_trt", "multi_gpu_train", "multi_gpu_evaluate")
# what bundles of an imported nnU-Net have instead of ours, and the code it calls
_NNUNET = BUNDLE_SRC / "nnunet"


def build_config(name: str, task: dict[str, Any], role: dict[str, Any]) -> dict[str, Any]:
    """``train.json`` or ``inference.json`` of one bundle."""
    sources = _macro_sources(name, task)
    base = load(BUNDLE_SRC / "base" / f"{name}.json")
    if name == "train":
        axes, train = task["fragments"]["mirror_axes"], base["train"]
        train["random_transforms"] = [
            t for t in train["random_transforms"] if t["_target_"] != "RandFlipd" or t["spatial_axis"] in axes
        ]
    # what a user changes first comes first, right after the paths
    position = list(base).index("device")
    common = {**task["common"], **(task["train"] if name == "train" else {}), **role["common"]}
    keys = [*list(base)[:position], *common, *[k for k in list(base)[position:] if k not in common]]
    several = len(task.get("nnunet", {}).get("folds", [])) > 1
    ensemble = load(_NNUNET / "ensemble.json").get(role["readme"]["role"], {}).get(name, {}) if several else {}
    merged = merge(sources, base, common, *(role["train"] if name == "train" else []), ensemble)
    return prune({k: merged[k] for k in [*keys, *merged] if k in merged and k not in _SOURCES})


def build_evaluate(task: dict[str, Any]) -> dict[str, Any]:
    """``evaluate.json`` of a task: its keys reach into ``train.json``, so only macros are resolved."""
    overlay = {**task["evaluate"], **load(BUNDLE_SRC / "base" / "evaluate.json")}
    return prune(merge(_macro_sources("evaluate", task), {"overlay": overlay})["overlay"])


def _macro_sources(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """What the macros of one config name: shared fragments, those of this config and those of the task."""
    fragments = load(BUNDLE_SRC / "base" / "fragments.json")
    imported = load(_NNUNET / "fragments.json") if "nnunet" in task else {}
    return {
        "fragments": {**fragments, **fragments[name], **imported, **task["fragments"]},
        "distillation": task["distillation"],
    }


def build_bundle(task_file: Path, role_name: str) -> dict[str, str]:
    """All text files of one bundle: path below the folder of bundles -> content.

    The file's stem is the task's name; overlays ``<name>.*.json`` beside it become configs of the bundle. An
    incomplete task, or one that contradicts itself, is refused.
    """
    task, role = read_task_file(task_file), load(BUNDLE_SRC / "roles" / f"{role_name}.json")
    if "nnunet" in task and str(_NNUNET) not in sys.path:
        sys.path.append(str(_NNUNET))  # the README counts the parameters of a network that may be an ensemble
    name = f"{task_file.stem}_segmentation_{role_name}"
    train = build_config("train", task, role)
    configs = {
        "metadata": {
            **build_metadata(task, role, _results(task_file, name)),
            **_memory(task_file, name),
            # what dcd verify rebuilds the bundle from
            "generated_from": {"task": task_file.stem, "role": role_name},
        },
        "train": train,
        "inference": build_config("inference", task, role),
        "evaluate": build_evaluate(task),
        **{name: load(BUNDLE_SRC / "base" / f"{name}.json") for name in _UNCHANGED},
    }
    for overlay in sorted(task_file.parent.glob(f"{task_file.stem}.*.json")):
        configs[overlay.name.split(".")[1]] = load(overlay)
    if "kd_loss" in train:
        configs["start_from_teacher"] = load(BUNDLE_SRC / "base" / "start_from_teacher.json")
        configs.update({f"methods/{p.stem}": load(p) for p in sorted((BUNDLE_SRC / "methods").glob("*.json"))})
    files = {f"configs/{n}.json": to_json(c) for n, c in configs.items()}
    files.update(_scripts())
    files["configs/logging.conf"] = (BUNDLE_SRC / "base" / "logging.conf").read_text(encoding="utf-8")
    files["docs/README.md"] = build_readme(name, task, role, configs)
    files["docs/data_license.txt"] = (
        "The bundle's code and configuration: Apache License 2.0, see LICENSE. No data are part of it.\n"
        f"Data its weights are trained on: {task['readme']['data_license']}\n"
    )
    if "nnunet" in task:
        about = dict(task["nnunet"])
        files.update({f"docs/nnunet/{n}.json": to_json(about.pop(n)) for n in ("plans", "dataset")})
        files["docs/nnunet/import.json"] = to_json(about)
        files.update({p.relative_to(_NNUNET).as_posix(): p.read_text("utf-8") for p in sorted(_NNUNET.glob("*/*.py"))})
    files["LICENSE"] = (ROOT / "LICENSE").read_text(encoding="utf-8")
    files["models/.gitkeep"] = ""
    return {f"{name}/{path}": text for path, text in files.items()}


def _scripts() -> dict[str, str]:
    """The package ``dcd_inference`` that inference imports: copies of what is no part of MONAI, so that none is needed.

    It has a name of its own, because ``scripts`` is also that of a folder in many a working directory.
    """
    sources = [
        *sorted((PACKAGE / "inference").glob("*.py")),
        *(PACKAGE / f"{name}.py" for name in ("errors", "io", "kernels", "recording", "weights")),
    ]
    renamed = r"dcd_ext(?:\.inference)?(?=[.`])", "dcd_inference"
    return {f"scripts/dcd_inference/{p.name}": re.sub(*renamed, p.read_text("utf-8")) for p in sources}


def _memory(task_file: Path, name: str) -> dict[str, Any]:
    """Bound of what ``dcd predict`` takes: what scripts/measure_memory.py found, and a tenth for other machines.

    A distilled student has the network of the plain one.
    """
    found = load(BUNDLE_SRC / "memory.json").get(name.removesuffix("_dcd"))
    if found is None or task_file.parent != BUNDLE_SRC / "tasks":
        return {}
    bound = math.ceil(11 * found["peak"]) / 10
    return {"memory": {"image": found["image"], "threads": found["threads"], "bound_gib": bound}}


def _results(task_file: Path, name: str) -> dict[str, Any]:
    """Measured scores of a shipped bundle; a user's task may have the name of a shipped one."""
    path = BUNDLE_SRC / "results" / f"{name}.json"
    return load(path) if path.is_file() and task_file.parent == BUNDLE_SRC / "tasks" else {}
