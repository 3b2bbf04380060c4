"""A folder that segments images without torch and MONAI: network, ``pipeline.json``, ``predict.py``."""

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcd_ext.bundles.export import export_onnx, require
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_json
from dcd_ext.predict import runtime
from dcd_ext.predict.spec import pipeline_spec

# backend -> file of its network in the folder
NETWORKS = {"openvino": "network.xml", "onnxruntime": "network.onnx", "int8": "network_int8.xml"}
_README = """# {name} {version}

Segments {channels} without torch and MONAI.

    pip install -r requirements.txt
    python predict.py IMAGE.nii.gz --output masks

Classes: {classes}. Licence of the code: Apache-2.0; that of the weights is the bundle's (LICENSE).
Not a medical device.
"""


def write_standalone(root: Path, output: Path, backend: str = "openvino", make: Callable | None = None) -> Path:
    """Write the folder for one of ``NETWORKS``, whole or not at all; one that this function made before is replaced.

    The bundle has ``models/model.pt``, from which the network is converted, unless ``make`` writes it below a folder.

    Raises:
        UserError: if the bundle's preprocessing is not among the steps of the runtime, or an export fails.
    """
    bundle = BundleFolder(root)
    spec = {**pipeline_spec(bundle), "network": NETWORKS[backend]}
    if output.exists() and not (output / "pipeline.json").exists():
        raise UserError(
            "output exists", output, "no such folder, or an exported one", "another folder", "choose another"
        )
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        folder = Path(temporary, "folder")
        folder.mkdir()
        (make or _MAKE[backend])(bundle, folder)
        write_json(spec, folder / "pipeline.json")
        shutil.copy(runtime.__file__, folder / "predict.py")
        (folder / "README.md").write_text(_readme(spec), "utf-8")
        (folder / "requirements.txt").write_text(_requirements(backend), "utf-8")
        for licence in (bundle.root / name for name in ("LICENSE", "docs/data_license.txt")):
            if licence.is_file():
                shutil.copy(licence, folder)
        if output.exists():
            shutil.rmtree(output)
        os.rename(folder, output)
    return output


def _readme(spec: dict[str, Any]) -> str:
    classes = ", ".join(f"{key} {name}" for key, name in spec["classes"].items())
    return _README.format(**{**spec, "classes": classes, "channels": ", ".join(spec["channels"])})


def _requirements(backend: str) -> str:
    engine = "onnxruntime" if backend == "onnxruntime" else "openvino"
    names = ("numpy", "scipy", "nibabel", engine)
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)


def _onnx(bundle: BundleFolder, folder: Path) -> Path:
    return export_onnx(bundle, folder / NETWORKS["onnxruntime"])


def _openvino(bundle: BundleFolder, folder: Path) -> Path:
    """OpenVINO's own format, converted from ONNX, with weights in float32."""
    openvino = require("openvino")
    with tempfile.TemporaryDirectory() as temporary:
        model = openvino.convert_model(export_onnx(bundle, Path(temporary, "network.onnx")))
    path = folder / NETWORKS["openvino"]
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


_MAKE: dict[str, Callable[[BundleFolder, Path], Path]] = {"onnxruntime": _onnx, "openvino": _openvino}
