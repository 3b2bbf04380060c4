"""A bundle's inference config as the steps of :mod:`dcd_ext.predict.runtime`."""

from collections.abc import Mapping
from typing import Any

from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.data.tasks import channel_names
from dcd_ext.errors import UserError

# MONAI's transform -> its arguments that the runtime implements, with the values it implements or None for any
_FREE = None
_KNOWN: dict[str, dict[str, Any]] = {
    "LoadImaged": {"image_only": _FREE, "reader": ({"_target_": "dcd_inference.volumes.VolumeReader"},)},
    "EnsureChannelFirstd": {},
    "Orientationd": {"axcodes": _FREE, "labels": _FREE},
    "CropForegroundd": {"source_key": ("image",), "allow_smaller": _FREE},
    "Spacingd": {"pixdim": _FREE, "mode": ("bilinear",)},
    "NormalizeIntensityd": {"nonzero": _FREE, "channel_wise": (True,)},
    "EnsureTyped": {"track_meta": _FREE},
    "Invertd": {"transform": _FREE, "orig_keys": ("image",), "nearest_interp": (False,), "to_tensor": _FREE},
    "AsDiscreted": {"argmax": (True,)},
    "SaveImaged": dict.fromkeys(("output_dir", "output_ext", "output_postfix", "separate_folder"), _FREE)
    | {"output_dtype": _FREE, "resample": (False,), "squeeze_end_dims": _FREE, "print_log": _FREE, "writer": _FREE},
    "SlidingWindowInferer": {
        "roi_size": _FREE,
        "sw_batch_size": _FREE,
        "overlap": _FREE,
        "mode": ("gaussian",),
        "padding_mode": ("constant",),
        "cache_roi_weight_map": _FREE,
    },
}
_STEPS = {
    "Orientationd": lambda t: ("orient", {"axcodes": t["axcodes"]}),
    "CropForegroundd": lambda t: ("crop_foreground", {}),
    "Spacingd": lambda t: ("spacing", {"pixdim": list(t["pixdim"])}),
    "NormalizeIntensityd": lambda t: ("normalize", {"nonzero": bool(t.get("nonzero", False))}),
}


def pipeline_spec(bundle: BundleFolder) -> dict[str, Any]:
    """Content of ``pipeline.json``, without the network's file.

    Raises:
        UserError: for a transform, an argument or an inferer that the runtime does not implement, by its name.
    """
    parser = bundle.parser()
    parser.parse()
    for section in ("postprocessing", "preprocessing"):
        transforms = _transforms(parser, section, bundle)
        for transform in transforms:
            _require_known(transform, bundle)
    window: dict = parser.get_parsed_content("inferer", instantiate=False).get_config()
    _require_known(window, bundle)
    steps = [_STEPS[t["_target_"]](t) for t in transforms if t["_target_"] in _STEPS]
    names = bundle.metadata["network_data_format"]
    return {
        "name": bundle.name,
        "version": bundle.version,
        "channels": list(channel_names(names["inputs"]["image"]["channel_def"])),
        "classes": names["outputs"]["pred"]["channel_def"],
        "steps": steps,
        "window": {"size": list(window["roi_size"]), "overlap": window.get("overlap", 0.25)},
    }


def _transforms(parser: Any, section: str, bundle: BundleFolder) -> list[dict]:
    """Configs of a Compose's enabled transforms, with references resolved where they are plain values."""
    content = parser[section]
    if not isinstance(content, Mapping) or content.get("_target_") != "Compose":
        raise UserError("no fast pipeline", bundle.name, f"'{section}' as Compose", content, "use --backend eager")
    found = []
    for position, transform in enumerate(content["transforms"]):
        values = dict(transform)
        for key, value in transform.items():
            if isinstance(value, str) and value[:1] in "@$" and key not in ("transform", "output_dtype", "writer"):
                values[key] = parser.get_parsed_content(f"{section}::transforms::{position}::{key}")
        if not values.pop("_disabled_", False):
            found.append(values)
    return found


def _require_known(config: Mapping[str, Any], bundle: BundleFolder) -> None:
    name = str(config.get("_target_")).rpartition(".")[2]
    allowed = {"_target_": _FREE, "keys": (["image"], ["pred"], "image", "pred"), **_KNOWN.get(name, {})}
    for key, value in config.items():
        if name not in _KNOWN or key not in allowed or (allowed[key] is not _FREE and value not in allowed[key]):
            what = name if name not in _KNOWN else f"{name} with {key}={value}"
            expected = "transforms of the shipped bundles"
            raise UserError("no fast pipeline", bundle.name, expected, what, "use --backend eager")
