"""Write the bundle of a student: the teacher's configs with a narrower network, and the distillation."""

import re
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from dcd_ext.bundles.sources import to_json
from dcd_ext.errors import UserError
from dcd_ext.io import write_text
from dcd_ext.networks import count_parameters
from dcd_ext.students.hooks import Hook, table
from dcd_ext.students.plain import follow, merged
from dcd_ext.students.teacher import TeacherBundle
from dcd_ext.tables import to_markdown
from dcd_ext.weights import save_checkpoint

_HANDLER = {
    "_target_": "dcd_ext.distill.DistillationHandler",
    "network": "@network",
    "teacher": "@teacher",
    "kd_loss": "@kd_loss",
    "weight": "@kd_schedule",
    "taps": "@taps",
}
# one group of parameters, or several with options of their own, and those of the loss
_PARAMETERS = (
    "$(lambda p: p if isinstance(p[0], dict) else [{'params': p}])(list(%s))"
    " + [{'params': [p for p in @kd_loss.parameters() if p.requires_grad]}]"
)


def write_student(
    teacher: TeacherBundle,
    student_def: dict[str, Any],
    hooks: list[Hook],
    output: Path,
    trainer_key: str | None = None,
    kd_weight: float = 0.05,
) -> None:
    """Write the folder ``output`` at once, or not at all.

    Args:
        teacher: with its weights loaded.
        student_def: definition of its narrower network.
        hooks: what is compared.
        output: the bundle's folder, which must not exist or be empty.
        trainer_key: id of the trainer, default ``train::trainer``.
        kd_weight: highest weight of the distillation loss.

    Raises:
        UserError: if the training config cannot be extended, or the folder is in use.
    """
    configs = _configs(teacher, student_def, hooks, trainer_key or "train::trainer", kd_weight)
    temporary = output.with_name(f".tmp-{output.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, config in configs.items():
            text = to_json(config) if name.endswith(".json") else yaml.safe_dump(config, sort_keys=False, width=120)
            write_text(text, temporary / "configs" / name)
        _copy_the_rest(teacher.root, temporary)
        if teacher.metadata:
            write_text(to_json(_metadata(teacher, output.name)), temporary / "configs" / "metadata.json")
        write_text(_readme(teacher, student_def, hooks, output.name), temporary / "docs" / "README.md")
        save_checkpoint(teacher.network.state_dict(), temporary / "models" / "teacher.pt")
        if output.exists():
            output.rmdir()
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(output: Path) -> None:
    """Refuse a folder with something in it.

    Raises:
        UserError: if it exists and is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError("the output exists", output, "a new folder", "files", "choose another --output")


def _configs(
    teacher: TeacherBundle, student_def: dict[str, Any], hooks: list[Hook], trainer_key: str, kd_weight: float
) -> dict[str, dict[str, Any]]:
    """Content of every config, by its file's name."""
    original = teacher.definitions.raw(teacher.network_key)
    changed = {name: value for name, value in student_def.items() if value != original.get(name)}
    configs = {name: _narrowed(config, original["_target_"], changed) for name, config in teacher.configs.items()}
    train = merged(teacher.configs[teacher.train_file])
    train[teacher.network_key] = student_def
    train.update(_distillation(teacher, hooks, kd_weight))
    handlers = _attach(train, trainer_key, teacher.definitions.file)
    _name_runs(train, "training", trainer_key)
    configs[teacher.train_file] = _content(train)
    for name, config in configs.items():
        if Path(name).stem.startswith("inference"):
            config.setdefault("inference", "%run")
    # entries of the list of handlers that other configs name by their number
    return configs if handlers is None else {name: _shifted(config, handlers) for name, config in configs.items()}


def _narrowed(config: dict[str, Any], target: str, changed: dict[str, Any]) -> dict[str, Any]:
    """A config with other widths where it defines the teacher's network once more."""
    defines = {key for key, value in config.items() if isinstance(value, dict) and value.get("_target_") == target}
    return {key: {**value, **changed} if key in defines else deepcopy(value) for key, value in config.items()}


def _distillation(teacher: TeacherBundle, hooks: list[Hook], kd_weight: float) -> dict[str, Any]:
    """Entries of a training config; those of the shipped DCD students."""
    key = teacher.network_key
    # arguments that refer to others of the same network mean the teacher's
    own = re.compile(rf"@{_either(key)}(?:::|#)")
    return {
        "teacher_ckpt": "$@bundle_root + '/models/teacher.pt'",
        "teacher_def": {**_mapped(teacher.definitions.raw(key), own, "@teacher_def::"), "_mode_": "callable"},
        "teacher": {
            "_target_": "dcd_ext.distill.teacher.load_teacher",
            "network_def": "@teacher_def",
            "ckpt_path": "@teacher_ckpt",
            "device": "@device",
        },
        "taps": [hook.path for hook in hooks],
        "kd_loss_def": {
            "_target_": "dcd_ext.losses.DCDLoss",
            "student_channels": [hook.student[0] for hook in hooks],
            "teacher_channels": [hook.teacher[0] for hook in hooks],
            "wavelet": "db4",
            "levels": 3,
            "mode": "zero",
            "bands": "directional",
        },
        "kd_loss": "$@kd_loss_def.to(@device)",
        "kd_weight": kd_weight,
        "kd_schedule": {
            "_target_": "dcd_ext.distill.schedules.CosineHealingWeight",
            "weight": "@kd_weight",
            "start": 0.1,
            "ramp": 0.3,
        },
    }


def _attach(train: ConfigParser, trainer_key: str, file: Path) -> str | None:
    """Give the trainer the handler, and its optimizer the loss's parameters; the id of the list of handlers, if any."""
    trainer = train.get(trainer_key)
    if not (isinstance(trainer, dict) and str(trainer.get("_target_")).endswith("SupervisedTrainer")):
        expected, found = f"a SupervisedTrainer at {trainer_key}", repr(trainer)[:80] if trainer else "none"
        raise UserError("no trainer that can distil", file, expected, found, "pass --trainer_key KEY")
    optimizer = follow(train, f"{trainer_key}::optimizer")
    parameters = (train.get(optimizer) or {}).get("params") if isinstance(train.get(optimizer), dict) else None
    if not (isinstance(parameters, str) and parameters[:1] in "$@"):
        expected, step = (
            f"'params' as an expression at {optimizer}",
            "write the optimizer as a dictionary with _target_",
        )
        raise UserError("unknown parameters of the optimizer", file, expected, repr(train.get(optimizer))[:80], step)
    train[f"{optimizer}::params"] = _PARAMETERS % parameters.removeprefix("$")
    train["kd_handler"] = {**_HANDLER, "network": trainer["network"]}
    handlers = follow(train, f"{trainer_key}::train_handlers")
    there = train.get(handlers)
    if isinstance(there, list):
        # first, because overlays for several GPUs cut the list at its end
        train[handlers] = ["@kd_handler", *there]
        return handlers
    text = f" + list({there.removeprefix('$')})" if isinstance(there, str) else ""
    train[f"{trainer_key}::train_handlers"] = f"$[@kd_handler]{text}"
    return None


def _name_runs(config: ConfigParser, name: str, trainer_key: str) -> None:
    """``run`` and ``training`` both start it, whichever there is."""
    if "run" not in config:
        config["run"] = f"%{name}" if name in config else [f"$@{trainer_key}.run()"]
    if name not in config:
        config[name] = "%run"
    initialize = config.get("initialize", [])
    # our errors are one line in training, too
    plain = {"_target_": "dcd_ext.errors.show_plainly"}
    config["initialize"] = [*(initialize if isinstance(initialize, list) else [initialize]), plain]


def _shifted(config: Any, handlers: str) -> Any:
    """A config in which every number that follows the id of the list is greater by one."""
    pattern = re.compile(rf"({_either(handlers)}(?:::|#))(\d+)")
    return _mapped(config, pattern, lambda match: f"{match[1]}{int(match[2]) + 1}")


def _either(key: str) -> str:
    """A pattern for an id with any of MONAI's two separators."""
    return re.escape(key).replace("::", "(?:::|#)")


def _mapped(value: Any, pattern: re.Pattern[str], replacement: Any) -> Any:
    """Replaced in every text of a config, keys included."""
    if isinstance(value, dict):
        return {_mapped(k, pattern, replacement): _mapped(v, pattern, replacement) for k, v in value.items()}
    if isinstance(value, list):
        return [_mapped(item, pattern, replacement) for item in value]
    return pattern.sub(replacement, value) if isinstance(value, str) else value


def _content(parser: ConfigParser) -> dict[str, Any]:
    content: Any = parser.config
    return content


def _copy_the_rest(source: Path, target: Path) -> None:
    """What else a bundle runs and is shared with; not its weights and records of them."""
    for path in (*source.glob("LICENSE*"), source / "docs" / "data_license.txt", *source.glob("configs/*.conf")):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    for folder in ("scripts", "nnunet_scripts"):
        if (source / folder).is_dir():
            shutil.copytree(source / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))


def _metadata(teacher: TeacherBundle, name: str) -> dict[str, Any]:
    """The teacher's, without its scores."""
    about = {key: value for key, value in teacher.metadata.items() if key != "eval_metrics"}
    source = f"{about.get('name', teacher.root.name)} {about.get('version', '')}".strip()
    history = f"student of {source}, by Detail Consistent Distillation"
    return {**about, "version": "0.1.0", "changelog": {"0.1.0": history}, "name": name}


def _readme(teacher: TeacherBundle, student_def: dict[str, Any], hooks: list[Hook], name: str) -> str:
    numbers = [count_parameters(network) for network in (teacher.network, teacher.build(student_def))]
    return _README.format(
        name=name,
        teacher=teacher.root.name,
        numbers="{:,} parameters instead of {:,}".format(*reversed(numbers)),
        train=teacher.train_file,
        inference=next((n for n in teacher.configs if Path(n).stem == "inference"), "inference.json"),
        hooks=to_markdown(table(hooks)),
    )


_README = """# {name}

A student of the bundle `{teacher}`: the same network with narrower layers ({numbers}), to be trained on the
same data with Detail Consistent Distillation. Transforms, inferer, loss and data are the teacher's; see its
page for them and for their licences.

```
python -m monai.bundle run training --bundle_root . --config_file configs/{train}
python -m monai.bundle run inference --bundle_root . --config_file configs/{inference}
```

Training needs `dcd_ext` and the teacher's weights, `models/teacher.pt`. Inference needs neither.

Compared features, after a projection to the teacher's width:

{hooks}
"""
