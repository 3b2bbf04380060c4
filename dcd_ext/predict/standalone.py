"""A folder that segments images without torch and MONAI: network, ``pipeline.json``, ``predict.py``."""

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dcd_ext.bundles.export import export_onnx, require
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.data.tasks import channel_names
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_json
from dcd_ext.predict import runtime

# backend -> file of its network in the folder
NETWORKS = {"openvino": "network.xml", "onnxruntime": "network.onnx", "int8": "network_int8.xml"}
_README = """# {name} {version}

Segments {channels} without torch and MONAI.

    pip install -r requirements.txt
    python predict.py IMAGE.nii.gz --output masks

Classes: {classes}. Licence of the code: Apache-2.0; that of the weights is the bundle's (LICENSE).
Not a medical device.
"""
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


def write_standalone(root: Path, output: Path, backend: str = "openvino", make: Callable | None = None) -> Path:
    """Write the folder for one of ``NETWORKS``, whole or not at all; one that this function made before is replaced.

    The bundle has ``models/model.pt``, from which the network is converted, unless ``make`` writes it to a path
    and returns what it adds to ``pipeline.json``. Refused if the bundle's preprocessing is not among the steps of the
    runtime, or an export fails.
    """
    bundle = BundleFolder(root)
    spec = {**pipeline_spec(bundle), "network": NETWORKS[backend]}
    if output.exists() and not (output / "pipeline.json").exists():
        expected = "no such folder, or an exported one"
        raise UserError("output exists", output, expected, "another folder", "choose another")
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        folder = Path(temporary, "folder")
        folder.mkdir()
        about = (make or _convert)(bundle, folder / NETWORKS[backend])
        write_json({**spec, **(about or {})}, folder / "pipeline.json")
        shutil.copy(runtime.__file__, folder / "predict.py")
        classes = ", ".join(f"{key} {name}" for key, name in spec["classes"].items())
        readme = _README.format(**{**spec, "classes": classes, "channels": ", ".join(spec["channels"])})
        (folder / "README.md").write_text(readme, "utf-8")
        packages = ("numpy", "scipy", "nibabel", "onnxruntime" if backend == "onnxruntime" else "openvino")
        requirements = "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in packages)
        (folder / "requirements.txt").write_text(requirements, "utf-8")
        for licence in (bundle.root / name for name in ("LICENSE", "docs/data_license.txt")):
            if licence.is_file():
                shutil.copy(licence, folder)
        if output.exists():
            shutil.rmtree(output)
        os.rename(folder, output)
    return output


def _convert(bundle: BundleFolder, path: Path) -> None:
    """ONNX, or OpenVINO's own format, converted from it, with weights in float32."""
    if path.suffix == ".onnx":
        export_onnx(bundle, path)
        return
    openvino = require("openvino")
    with tempfile.TemporaryDirectory() as temporary:
        model = openvino.convert_model(export_onnx(bundle, Path(temporary, "network.onnx")))
    openvino.save_model(model, path, compress_to_fp16=False)


def pipeline_spec(bundle: BundleFolder) -> dict[str, Any]:
    """Content of ``pipeline.json``, without the network's file.

    Refused, by its name, is a transform, an argument or an inferer that the runtime does not implement.
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
