"""What a user points at, as cases."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dcd_ext.data.tasks import channel_names
from dcd_ext.errors import UserError
from dcd_ext.inference.dicom import is_dicom
from dcd_ext.io import sha256
from dcd_ext.predict import runtime
from dcd_ext.predict.runtime import Case, PredictError
from dcd_ext.readers import read_json, read_pipeline

_OTHERS = (".mha", ".mhd", ".nrrd", ".nhdr", ".gipl")


def find_inputs(inputs: Sequence[Path], channels: Sequence[str], output: Path | None = None) -> list[Case]:
    """Cases below files, folders and data lists, see :func:`runtime.find_cases`; what lies in ``output`` is none."""
    try:
        return runtime.find_cases(inputs, channels, _is_image, output)
    except PredictError as error:
        raise UserError(*str(error).split(" – ", 1)) from error


def _is_image(path: Path) -> bool:
    """Also a folder of DICOM files is one."""
    if path.is_dir():
        return any(is_dicom(file) for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return runtime.is_nifti(path) or (path.suffix.lower() in _OTHERS and path.is_file())


def image_sha256(case: Case) -> str:
    """SHA-256 of the files of a case, those of a folder of DICOM, too; empty if there is none."""
    each = (path for file in case.files for path in (sorted(file.iterdir()) if file.is_dir() else [file]))
    sums = "".join(sha256(path) for path in each if path.is_file())
    return sums and hashlib.sha256(sums.encode()).hexdigest()


def read_channels(root: Path) -> list[str]:
    """Names of a bundle's input channels, in their order; also of a standalone folder."""
    if (root / "pipeline.json").is_file():
        return list(read_pipeline(root)["channels"])
    path = root / "configs" / "metadata.json"
    found = read_json(path, "metadata", "metadata of a bundle", "check the path")
    try:
        return list(channel_names(found["network_data_format"]["inputs"]["image"]["channel_def"]))
    except KeyError as error:
        raise UserError("not a bundle", path, f"an entry {error}", "none", "check the path") from error
