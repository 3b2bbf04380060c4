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
from dcd_ext.students.distillation import add_distillation
from dcd_ext.students.hooks import Hook, table
from dcd_ext.students.plain import changed, either_separator, mapped, merged, trainer_of
from dcd_ext.students.teacher import TeacherBundle
from dcd_ext.tables import to_markdown
from dcd_ext.weights import save_weights


def write_student(
    teacher: TeacherBundle,
    student_def: dict[str, Any],
    hooks: list[Hook],
    output: Path,
    trainer_key: str | None = None,
    kd_weight: float = 0.05,
    start: bool = False,
) -> None:
    """Write the folder ``output``, which must not exist or be empty, at once, or not at all.

    Args:
        teacher: with its weights loaded.
        student_def: definition of its narrower network.
        hooks: what is compared.
        output: the bundle's folder.
        trainer_key: id of the trainer, default ``train::trainer``, or the only one; refused if it cannot be extended.
        kd_weight: highest weight of the distillation loss.
        start: let the training begin with the teacher's strongest channels.
    """
    configs = _configs(teacher, student_def, hooks, trainer_key, kd_weight, start)
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
        save_weights(teacher.network.state_dict(), temporary / "models" / "teacher.pt", {"scores": teacher.scores})
        if output.exists():
            output.rmdir()
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(output: Path) -> None:
    """Refuse a folder with something in it."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError("the output exists", output, "a new folder", "files", "choose another --output")


def _configs(
    teacher: TeacherBundle,
    student_def: dict[str, Any],
    hooks: list[Hook],
    trainer_key: str | None,
    kd_weight: float,
    start: bool,
) -> dict[str, dict[str, Any]]:
    """Content of every config, by its file's name."""
    narrower = {name: value for name, value in student_def.items() if value != teacher.definition.get(name)}

    def narrowed(entry: Any) -> Any:
        """Wherever a config defines the teacher's network once more."""
        defines = isinstance(entry, dict) and entry.get("_target_") == teacher.definition["_target_"]
        return {**entry, **deepcopy(narrower)} if defines else entry

    configs = {name: changed(config, narrowed) for name, config in teacher.configs.items()}
    train = merged(teacher.configs[teacher.train_file])
    train[teacher.network_key] = student_def
    trainer_key = trainer_key or trainer_of(train) or "train::trainer"
    handlers, number = add_distillation(train, teacher, hooks, trainer_key, kd_weight, start)
    _name_runs(train, trainer_key)
    content: Any = train.config
    configs[teacher.train_file] = content
    for name, config in configs.items():
        if Path(name).stem.startswith("inference"):
            config.setdefault("inference", "%run")
    # entries of the list of handlers that other configs name by their number
    return {n: _shifted(config, handlers, number) if handlers else config for n, config in configs.items()}


def _name_runs(config: ConfigParser, trainer_key: str) -> None:
    """``run`` and ``training`` both start it, whichever there is."""
    if "run" not in config:
        config["run"] = "%training" if "training" in config else [f"$@{trainer_key}.run()"]
    if "training" not in config:
        config["training"] = "%run"
    steps = config.get("initialize") or []
    steps = steps if isinstance(steps, list) else [steps]
    # our errors are one line in training, too; a step that looks for this package comes before it is needed
    looking = [step for step in steps if "dcd_ext" in str(step)]
    plain = {"_target_": "dcd_ext.errors.show_plainly"}
    config["initialize"] = [*looking, plain, *(step for step in steps if step not in looking)]


def _shifted(config: Any, handlers: str, number: int) -> Any:
    """A config in which every number that follows the id of the list is greater by ``number``."""
    pattern = re.compile(rf"({either_separator(handlers)}(?:::|#))(\d+)")
    return mapped(config, pattern, lambda match: f"{match[1]}{int(match[2]) + number}")


def _copy_the_rest(source: Path, target: Path) -> None:
    """What else a bundle runs and is shared with; not its weights and records of them."""
    for path in (*source.glob("LICENSE*"), source / "docs" / "data_license.txt", *source.glob("configs/*.conf")):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    for folder in ("scripts", "nnunet_scripts", "docs/nnunet"):
        if (source / folder).is_dir():
            shutil.copytree(source / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))


def _metadata(teacher: TeacherBundle, name: str) -> dict[str, Any]:
    """The teacher's, without its scores and where its files come from."""
    about = {k: value for k, value in teacher.metadata.items() if k not in ("eval_metrics", "generated_from")}
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
