"""One 3D configuration of nnU-Net's plans: refused here if a bundle could not do what it says."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.bundles.planner import Plan, blocks_per_stage
from dcd_ext.errors import UserError
from dcd_ext.nnunet.results import read_json

_UNET = "dynamic_network_architectures.architectures.unet."
# supported classes, and what they call the number of convolutions or blocks per encoder stage
NETWORKS = {_UNET + "ResidualEncoderUNet": "n_blocks_per_stage", _UNET + "PlainConvUNet": "n_conv_per_stage"}
SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
_READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")
_RESAMPLING = "resample_data_or_seg_to_shape"
_STEP = "docs/bring_your_teacher.md lists what can be imported"
# numbers and names that a network is built from; a name is evaluated in the bundle's config
_CLASS = re.compile(r"torch\.nn(\.\w+)+")


@dataclass(frozen=True)
class Configuration:
    """Entries of ``plans.json``, checked; axes are those of the network."""

    name: str
    patch_size: list[int]
    batch_size: int
    spacing: list[float]
    transpose_forward: list[int]
    normalization: list[dict[str, Any]]
    resampling: dict[str, dict[str, Any]]
    reorients: bool  # its reader turns images to RAS first
    network: str  # dotted name of the class
    arguments: dict[str, Any]  # of the class, as in the plans
    imported: list[str]  # which of them are dotted names


def read_configuration(plans: dict[str, Any], name: str, where: Path) -> Configuration:
    """The configuration ``name``, with what it inherits; read within :func:`complete`.

    Refused are 2D, low-resolution and cascade configurations, and unknown classes.
    """
    entries = resolve(plans, name, where)
    patch = [int(side) for side in entries["patch_size"]]
    if len(patch) != 3 or entries.get("previous_stage") or entries.get("next_stage") or "lowres" in name:
        raise UserError("cannot import this configuration", where, "3d_fullres on its own", name, _STEP)
    architecture = entries.get("architecture")
    if not architecture:
        raise UserError("plans of an old nnU-Net", where, "an entry 'architecture' (v2.5)", "none", _STEP)
    network = str(architecture["network_class_name"])
    # older versions have the class in a module of its own
    network = network.replace("architectures.residual_unet.", "architectures.unet.")
    _one_of(network, NETWORKS, "network", where)
    _one_of(entries.get("preprocessor_name", "DefaultPreprocessor"), ("DefaultPreprocessor",), "preprocessor", where)
    reader = plans["image_reader_writer"]
    _one_of(reader, _READERS, "image reader", where)
    if sorted(plans["transpose_forward"]) != [0, 1, 2]:
        raise ValueError(f"transpose_forward {plans['transpose_forward']}")
    return Configuration(
        name,
        patch,
        int(entries["batch_size"]),
        [float(side) for side in entries["spacing"]],
        [int(axis) for axis in plans["transpose_forward"]],
        _normalization(plans, entries, where),
        {kind: _resampling(entries, kind, where) for kind in ("data", "seg", "probabilities")},
        reader == "NibabelIOWithReorient",
        network,
        dict(architecture["arch_kwargs"]),
        list(architecture["_kw_requires_import"]),
    )


@contextmanager
def complete(where: Path) -> Iterator[None]:
    """Refuse plans that lack something, whatever error that happens to raise."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError("incomplete plans", where, "plans.json of nnU-Net v2.5 or later", found, _STEP) from error


def read_plan(path: Path) -> Plan:
    """nnU-Net's plan for 3D at full resolution; of its network only what the bundles' own network has, too."""
    names = ("pixdim", "patch_size", "strides", "features", "n_blocks", "batch_size")
    with complete(path):
        found = read_configuration(read_json(path), "3d_fullres", path)
        # position in the plans of each axis x, y, z: nnU-Net counts the axes of a file as z, y, x and may permute them
        order = [found.transpose_forward.index(axis) for axis in (2, 1, 0)]
        rows = [found.spacing, found.patch_size, *found.arguments["strides"], *found.arguments["kernel_sizes"]]
        spacing, patch, *stages = ([row[axis] for axis in order] for row in rows)
        number = len(found.arguments["strides"])
        blocks = list(found.arguments.get("n_blocks_per_stage") or blocks_per_stage(number))
        features = list(found.arguments["features_per_stage"])
        reasons = dict.fromkeys(names, f"from {path.name}")
        if "n_blocks_per_stage" not in found.arguments:
            reasons["n_blocks"] = f"those of nnU-Net's residual encoder: {path.name} are of a plain one"
        return Plan(spacing, patch, stages[:number], stages[number:], features, blocks, found.batch_size, reasons)


def resolve(plans: dict[str, Any], name: str, where: Path) -> dict[str, Any]:
    """A configuration's entries over those of the ones it inherits from."""
    known = plans.get("configurations")
    chain: list[dict[str, Any]] = []
    following: Any = name
    while following is not None:
        entries = known.get(following) if isinstance(known, dict) else None
        if not isinstance(entries, dict) or len(chain) > len(known or ()):
            raise UserError("no such configuration", where, "one of the plans", following, _STEP)
        chain.append(entries)
        following = entries.get("inherits_from")
    return {key: value for entries in reversed(chain) for key, value in entries.items() if key != "inherits_from"}


def _one_of(found: Any, known: Any, what: str, where: Path) -> None:
    if found not in known:
        raise UserError(f"cannot import this {what}", where, " or ".join(map(str, known)), found, _STEP)


def _normalization(plans: dict[str, Any], entries: dict[str, Any], where: Path) -> list[dict[str, Any]]:
    schemes = []
    for channel, scheme in enumerate(entries["normalization_schemes"]):
        _one_of(scheme, SCHEMES, "normalisation", where)
        values = {"scheme": scheme, "use_mask": bool(entries["use_mask_for_norm"][channel])}
        if scheme == "CTNormalization":
            measured = plans["foreground_intensity_properties_per_channel"][str(channel)]
            names = {"mean": "mean", "std": "std", "lower": "percentile_00_5", "upper": "percentile_99_5"}
            values |= {ours: float(measured[theirs]) for ours, theirs in names.items()}
        schemes.append(values)
    return schemes


def _resampling(entries: dict[str, Any], kind: str, where: Path) -> dict[str, Any]:
    _one_of(entries[f"resampling_fn_{kind}"], (_RESAMPLING,), "resampling", where)
    options = entries[f"resampling_fn_{kind}_kwargs"]
    _one_of(options.get("order_z", 0), (0,), "order of resampling between slices", where)
    _one_of(options["order"], range(6), "order of resampling", where)
    return {"order": int(options["order"]), "force_separate_z": options.get("force_separate_z")}


def config_arguments(configuration: Configuration, where: Path) -> dict[str, Any]:
    """The network's arguments as entries of a bundle's config: names become expressions that look them up.

    Refused is anything but numbers, and classes of ``torch.nn``.
    """
    arguments: dict[str, Any] = {}
    for key, value in configuration.arguments.items():
        if key in configuration.imported and value is not None:
            if not isinstance(value, str) or not _CLASS.fullmatch(value):
                raise UserError("unsafe entry in the plans", where, f"a class of torch.nn as {key}", value, _STEP)
            arguments[key] = f"${value}"
        elif _is_plain(value):
            arguments[key] = value
        else:
            raise UserError("unsafe entry in the plans", where, f"numbers as {key}", value, _STEP)
    return arguments


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and k.isidentifier() and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, (bool, int, float))
