"""What a bundle's training and evaluation do before anything else: plain errors, known config keys, checked data."""

import difflib
import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from dcd_ext.bundles.options import settle_options
from dcd_ext.data import require_checked
from dcd_ext.distributed import on_main_process
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.handlers.run import Run
from dcd_ext.inference.cohort import check_device
from dcd_ext.inference.inputs import check_paths
from dcd_ext.io import sha256
from dcd_ext.versions import packages

# options that a run may have and no shipped config sets
_OPTIONS = {"allow_unchecked", "extra_keys"}
_PATHS = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "ckpt_path", "teacher_ckpt")
# what MONAI itself adds to a config: the metadata and what --tracking brings along
_TRACKING: Any = DEFAULT_MLFLOW_SETTINGS["configs"]
_MONAI_KEYS = {"_meta_", *_TRACKING}
# where a run reads and writes, and on what hardware: it may be resumed elsewhere; fold and data are compared apart
_PLACES = {"bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "fold", "device", "num_workers", "cache_rate"}
_RUN_IDS = ("training", "evaluating", "run")
_STEPS = {"imports", "initialize", "run", "training", "finalize", "resume"}


def prepare_run() -> Run:
    """Make a run fail early and in one line; to be called first in a config's ``initialize``.

    From then on a :class:`UserError` ends the program with its message, also for a path that MONAI cannot evaluate:
    that is why this function has no arguments. MONAI accepts a mistyped key in silence:
    :func:`check_keys` refuses it, unless ``--extra_keys "['my_key']"`` declares it; :func:`settle_options` makes
    ``false`` false. An unknown run id and a path that MONAI has changed are refused, too, and a data set whose
    ``dcd check`` found errors, unless ``--allow_unchecked True`` is given; without ``datalist.json`` nothing is looked
    at, because MONAI Label sets the cases themselves.

    Returns what tells this run from others: fold, data list, merged config, versions.
    """
    show_plainly()
    workflow = _running_workflow()
    config: Any = workflow.parser.config
    if workflow.run_id not in config:
        known = ", ".join(name for name in _RUN_IDS if name in config)
        raise UserError("unknown run id", "monai.bundle run", f"one of {known}", workflow.run_id, "correct it")
    paths = {key: workflow.parser.get_parsed_content(key) for key in _PATHS if key in config}
    check_paths(**paths)
    bundle_root, dataset_dir = paths["bundle_root"], paths["dataset_dir"]
    # monai.bundle.load passes no bundle_root, and "." is wherever the user is: take the folder of the running config
    folders = (Path(bundle_root) / "configs", Path(workflow.config_root_path))
    folder = next((f for f in folders if any(f.glob("*.json"))), folders[0])
    check_keys(config, folder)
    settle_options(workflow.parser, config_files(folder))
    check_device(workflow.parser.get_parsed_content("device"))
    _track_patiently(workflow.parser)
    datalist = Path(dataset_dir) / "datalist.json"
    if datalist.is_file():
        require_checked(dataset_dir, config.get("allow_unchecked", False))
    content = _deciding_entries(config)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    fold = workflow.parser.get_parsed_content("fold")
    return Run(fold, sha256(datalist) if datalist.is_file() else None, content, digest, packages())


def require_train_config() -> None:
    """Refuse a run of ``evaluate.json`` without the entries of ``train.json``; to be called first in it."""
    show_plainly()
    config: Any = _running_workflow().parser.config
    if "train" not in config:
        expected = "\"['<bundle>/configs/train.json','<bundle>/configs/evaluate.json']\""
        raise UserError("incomplete config", "--config_file", expected, "evaluate.json without train.json", "pass both")


def _track_patiently(parser: ConfigParser) -> None:
    """Put :class:`dcd_ext.handlers.tracking.Tracking` in the place of the handlers that ``--tracking mlflow`` added."""
    places = [f"{group}::handlers" for group in ("train", "validate")]
    ids = [f"{place}::{i}" for place in places for i in range(len(parser.get(place) or []))]
    items = [item for id in ids if (item := parser.ref_resolver.get_item(id)) and "MLFlow" in str(item.get_config())]
    for item in items:
        item.update_config({**item.get_config(), "_target_": "dcd_ext.handlers.tracking.Tracking"})
    if items and str(uri := parser.get_parsed_content("tracking_uri")).startswith("http"):
        from dcd_ext.handlers.tracking import require_server  # MLflow takes seconds to import

        on_main_process(lambda: require_server(uri))


def _deciding_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a merged config decides about the weights, as JSON values."""
    left_out = _PLACES | _STEPS | _OPTIONS | _MONAI_KEYS
    content = json.loads(json.dumps({k: v for k, v in config.items() if k not in left_out}, default=str))
    for group in (content.get("train", {}), content.get("validate", {})):  # where MONAI appends those of --tracking
        group["handlers"] = [h for h in group.get("handlers") or [] if "MLFlow" not in str(h.get("_target_"))]
    return {**content, "processes": int(os.environ.get("WORLD_SIZE", 1))}


def _running_workflow() -> ConfigWorkflow:
    """The workflow that is evaluating the expression this was called from.

    ``python -m monai.bundle run`` takes no workflow class of ours, and MONAI gives an expression neither the workflow
    nor the merged config (``@`` names resolved entries only), so the call stack is the one place to find it.
    """
    for call in inspect.stack(context=0):
        owner = call.frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return owner
    raise RuntimeError("prepare_run has to be called from a '$' expression of a running bundle config")


def config_files(folder: Path) -> list[Path]:
    """Configs shipped in a bundle's ``configs``; refused if there are none."""
    files = [file for file in sorted(folder.rglob("*.json")) if file.name != "metadata.json"]
    if not files:
        raise UserError("no bundle", folder, "configs/train.json", "none", "pass --bundle_root <bundle>")
    return files


def check_keys(config: Mapping[str, Any], folder: Path) -> None:
    """Compare a merged config with the files shipped in a bundle's ``configs``.

    Every top-level key and every key of a group without ``_target_`` (``train``, ``validate``) has to occur in one of
    the files or in the config's ``extra_keys``; arguments of a class are checked by the class itself. The first unknown
    key is refused, with the nearest known one.
    """
    known: dict[str, set[str]] = {"": _MONAI_KEYS | _OPTIONS}
    for file in config_files(folder):
        for group, keys in _groups(ConfigParser.load_config_file(file)):
            known.setdefault(group, set()).update(keys)
    meant = {key.replace("#", "::") for key in config.get("extra_keys", ())}
    unknown = [(group, key) for group, keys in _groups(config) for key in sorted(keys - known.get(group, keys))]
    for name in (_id(group, key) for group, key in unknown):
        if name not in meant:
            names = [_id(group, key) for group, keys in known.items() for key in keys]
            close = difflib.get_close_matches(name, names, n=1)
            expected = f"'{close[0]}'" if close else "a key of the shipped configs"
            step = f"correct it, or pass --extra_keys \"['{name}']\" if you mean it"
            raise UserError("unknown config key", "command line or config file", expected, f"'{name}'", step)


def _id(group: str, key: str) -> str:
    return f"{group}::{key}" if group else key


def _groups(config: Mapping, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each group of keys with its id: the top level and nested dictionaries that are not a class."""
    keys: set[str] = set()
    for key, value in config.items():
        # an overlay writes "train::trainer::amp" and "+train::handlers"; MONAI also takes "#" for "::"
        first, *rest = key.lstrip("+").replace("#", "::").split("::")
        keys.add(first)
        if rest and not name:
            yield first, {rest[0]}
        if isinstance(value, Mapping) and "_target_" not in value and not name and first != "_meta_":
            yield from _groups(value, first)
    yield name, keys
