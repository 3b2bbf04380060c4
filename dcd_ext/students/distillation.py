"""The distillation's part of a student's training config: the teacher, its check, the loss, and their handlers."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from dcd_ext.bundles.sources import BUNDLE_SRC, load
from dcd_ext.errors import UserError
from dcd_ext.students.hooks import Hook
from dcd_ext.students.plain import either_separator, entries, follow, mapped
from dcd_ext.students.teacher import TeacherBundle

# one group of parameters, or several with options of their own, and those of the loss
_PROJECTIONS = "[p for p in @kd_loss.parameters() if p.requires_grad]"
_PARAMETERS = (
    "$(lambda p: p if isinstance(p[0], dict) else [{'params': p}])(list(%s))" + f" + [{{'params': {_PROJECTIONS}}}]"
)


def add_distillation(
    train: ConfigParser, teacher: TeacherBundle, hooks: list[Hook], trainer_key: str, kd_weight: float, start: bool
) -> tuple[str | None, int]:
    """Extend a training config; refused if it has no trainer, or no optimizer, that can be extended.

    Returns:
        The id of the trainer's list of handlers, None where it is no list, and how many now stand at its beginning.
    """
    trainer, file = train.get(trainer_key), teacher.definitions.file
    known = isinstance(trainer, dict) and str(trainer.get("_target_")).endswith("SupervisedTrainer")
    if not known or "network" not in trainer:
        expected = f"a SupervisedTrainer with its network at {trainer_key}"
        found = repr(trainer)[:80] if trainer else "none"
        raise UserError("no trainer that can distil", file, expected, found, "pass --trainer_key KEY")
    train.update(_entries(teacher, hooks, kd_weight, str(trainer.get("device", "@device"))))
    _train_projections(train, trainer_key, file)
    network = trainer["network"]
    if start:  # by the handler, which overlays for several GPUs keep
        network = {"_target_": "dcd_ext.distill.start_from_teacher", "student": network, "teacher": "@teacher"}
    handlers = {"kd_handler": {**_shipped_handler("DistillationHandler"), "network": network}}
    # the modules have the same names in both networks
    handlers["kd_handler"].pop("teacher_taps")
    if evaluator := _teacher_evaluator(train):
        train["teacher_cases"] = 4
        handlers = {"teacher_check": {**_shipped_handler("TeacherCheck"), "evaluator": evaluator}, **handlers}
    train.update(handlers)
    return _attach(train, trainer_key, [f"@{name}" for name in handlers]), len(handlers)


def _shipped() -> dict[str, Any]:
    """What the shipped students have beside their teachers' entries."""
    *_, entries = load(BUNDLE_SRC / "roles" / "student_dcd.json")["train"]
    return entries


def _shipped_handler(name: str) -> dict[str, Any]:
    return next(h for h in _shipped()["+train::handlers"] if h["_target_"] == f"dcd_ext.distill.{name}")


def _entries(teacher: TeacherBundle, hooks: list[Hook], kd_weight: float, device: str) -> dict[str, Any]:
    key, shipped = teacher.network_key, _shipped()
    # arguments that refer to others of the same network mean the teacher's
    own = re.compile(rf"@{either_separator(key)}(?:::|#)")
    channels = {
        "student_channels": [hook.student[0] for hook in hooks],
        "teacher_channels": [hook.teacher[0] for hook in hooks],
    }
    loading = {key: value for key, value in shipped["teacher"].items() if key != "cpu_autocast"}
    return {
        "teacher_ckpt": "$@bundle_root + '/models/teacher.pt'",
        "teacher_def": {**mapped(teacher.definition, own, "@teacher_def::"), "_mode_": "callable"},
        "teacher": {**loading, "device": device},
        "taps": [hook.path for hook in hooks],
        "kd_loss_def": {**shipped["kd_loss_def"], **channels},
        "kd_loss": shipped["kd_loss"].replace("@device", device.removeprefix("$")),
        "kd_weight": kd_weight,
        "kd_schedule": {**shipped["kd_schedule"], "start": 0.1, "ramp": 0.3},
    }


def _train_projections(train: ConfigParser, trainer_key: str, file: Path) -> None:
    """Give the optimizer the loss's parameters."""
    optimizer = follow(train, f"{trainer_key}::optimizer")
    definition = train.get(optimizer)
    parameters = definition.get("params") if isinstance(definition, dict) else None
    if isinstance(parameters, list):  # groups
        train[f"{optimizer}::params"] = [*parameters, {"params": f"${_PROJECTIONS}"}]
        return
    if not (isinstance(parameters, str) and parameters[:1] in "$@"):
        expected, step = f"'params' as an expression at {optimizer}", "write it as a dictionary with _target_"
        raise UserError("unknown parameters of the optimizer", file, expected, repr(definition)[:80], step)
    train[f"{optimizer}::params"] = _PARAMETERS % parameters.removeprefix("$")


def _attach(train: ConfigParser, trainer_key: str, added: list[str]) -> str | None:
    """Put handlers before the trainer's own; the id of its list of handlers, if it is one."""
    handlers = follow(train, f"{trainer_key}::train_handlers")
    there = train.get(handlers)
    if isinstance(there, list):
        # first, because overlays for several GPUs cut the list at its end
        train[handlers] = [*added, *there]
        return handlers
    text = f" + list({there.removeprefix('$')})" if isinstance(there, str) else ""
    train[f"{trainer_key}::train_handlers"] = f"$[{', '.join(added)}]{text}"
    return None


def _teacher_evaluator(train: ConfigParser) -> dict[str, Any] | None:
    """The validation's evaluator for the teacher, with a metric of its own; None where there is no metric."""
    for _, definition in entries(train.config, "SupervisedEvaluator"):
        metric = definition.get("key_val_metric")
        if isinstance(metric, str) and metric.startswith("@"):
            metric = f"%{metric[1:]}"
        if isinstance(metric, dict) or str(metric).startswith("%"):
            kept = {k: v for k, v in definition.items() if k not in ("val_handlers", "additional_metrics")}
            return {**deepcopy(kept), "network": "@teacher", "key_val_metric": deepcopy(metric)}
    return None
