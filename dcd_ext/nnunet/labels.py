"""Labels of an nnU-Net data set: classes, or regions made of several label values; and voxels without a known label."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError

_STEP = "correct dataset.json"
# how an entry of a bundle's config becomes an expression, a reference or a macro
_ACTIVE = ("$", "@", "%")


@dataclass(frozen=True)
class Labels:
    """What the network's outputs and the label files mean."""

    outputs: list[str]  # one per output channel
    values: dict[int, str]  # label value -> class, background first
    regions: list[list[int]] | None  # label values of each output; None: outputs are classes
    region_values: list[int] | None  # the value each region paints into the label map
    ignore: int | None


def read_labels(dataset: dict[str, Any], where: Path) -> Labels:
    """What ``dataset.json`` says; refused if labels are missing, not numbered 0, 1, 2, …, or regions have no order."""
    try:
        named = {name: _values(value) for name, value in dataset["labels"].items()}
        order = [int(value) for value in dataset.get("regions_class_order") or ()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError("unusable labels", where, "label values by name", what, _STEP) from error
    named = {_plain_name(name, where): values for name, values in named.items()}
    ignore = named.pop("ignore", [None])[0]
    found = sorted({value for group in named.values() for value in group})
    if found != list(range(len(found))) or len(found) < 2 or named.get("background") != [0]:
        raise UserError("unusable labels", where, "background 0, then 1, 2, ... without gaps", found, _STEP)
    if all(len(values) == 1 for values in named.values()):
        classes = {values[0]: name for name, values in named.items()}
        return Labels([classes[value] for value in found], {v: classes[v] for v in found}, None, None, ignore)
    regions = {name: values for name, values in named.items() if values != [0]}
    if len(order) != len(regions) or not set(order) <= set(found):
        raise UserError("unusable regions", where, f"{len(regions)} label values as regions_class_order", order, _STEP)
    painted = dict(zip(order, regions, strict=True))
    names = {value: painted.get(value, f"label {value}") for value in found} | {0: "background"}
    return Labels(list(regions), names, list(regions.values()), order, ignore)


def read_channels(dataset: dict[str, Any], where: Path) -> list[str]:
    """Names of the input channels in their order."""
    channels = dataset.get("channel_names") or dataset.get("modality")
    try:
        names = [channels[key] for key in sorted(channels, key=int)]  # type: ignore[index, arg-type]
    except (TypeError, ValueError, KeyError) as error:
        raise UserError("unusable channels", where, "channel_names by number", channels, _STEP) from error
    return [_plain_name(name, where) for name in names]


def _plain_name(name: Any, where: Path) -> str:
    """A name that is text in a bundle's config, too; refused if it could be an expression."""
    text = str(name)
    if not text.strip() or any(sign in text for sign in _ACTIVE):
        raise UserError("unusable name", where, f"a name without {' '.join(_ACTIVE)}", repr(text), _STEP)
    return text


def _values(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    if any(int(v) != float(v) for v in values):
        raise ValueError(f"{value} is no whole number")
    return sorted({int(v) for v in values})
