"""Open a bundle's training config from a script, with the options of ``python -m monai.bundle run``."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow

from dcd_ext.errors import UserError


def config_files(text: str, bundle_root: str) -> list[str]:
    """Paths from one path or a list in Python's notation, as ``--config_file`` takes them.

    A path that is no file is looked for below ``bundle_root`` and its ``configs``.
    """
    value = DefaultParseValue(text)
    names = [str(v) for v in value] if isinstance(value, (list, tuple)) else [text]
    return [_find(name, bundle_root) for name in names]


def _find(name: str, bundle_root: str) -> str:
    for folder in ("", bundle_root, os.path.join(bundle_root, "configs")):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise UserError("config file not found", name, f"a file, also below {bundle_root}", "none", "correct --config_file")


def method_files(bundle_root: str, names: Sequence[str], train: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Config files per method: ``train`` (default ``configs/train.json``) and its own; "all" means every method."""
    configs = Path(bundle_root) / "configs"
    known = ["dcd", *sorted(p.stem for p in (configs / "methods").glob("*.json"))]
    names = known if list(names) == ["all"] else names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError("unknown method", "--methods", ", ".join(known), unknown[0], "correct the spelling")
    files = list(train or [str(configs / "train.json")])
    return {n: files if n == "dcd" else [*files, str(configs / "methods" / f"{n}.json")] for n in names}


def read_options(arguments: Sequence[str]) -> dict[str, Any]:
    """``--key value`` and ``--key=value`` pairs with values read as ``monai.bundle`` reads them; all else is refused.

    Example:
        >>> read_options(["--kd_weight", "0.1", "--taps=['encoder.stages.0']", "--resume", "True"])
        {'kd_weight': 0.1, 'taps': ['encoder.stages.0'], 'resume': True}
    """
    options: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        key, equals, value = word.partition("=")
        if not key.startswith("--") or len(key) == 2:
            raise UserError("unknown argument", "command line", "--key value", repr(word), "see --help")
        if not equals:
            following = next(words, None)
            if following is None:
                raise UserError("option without value", "command line", f"{key} value", key, "see --help")
            value = following
        options[key[2:]] = DefaultParseValue(value)
    return options


def open_bundle(bundle_root: str, files: Sequence[str], **override: Any) -> ConfigParser:
    """The merged config of a bundle after its ``initialize`` section, as ``python -m monai.bundle run`` makes it."""
    # it warns that there is no logging file, which is what is wanted here
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    workflow = ConfigWorkflow(
        config_file=list(files),
        workflow_type="train",
        logging_file=False,
        run_id="run",
        bundle_root=os.path.abspath(bundle_root),  # not evaluated, whatever its first character
        **override,
    )
    workflow.initialize()
    return workflow.parser
