"""A bundle as the stages read, preprocess, network, postprocess and write, whatever runs its network."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dcd_ext.data.tasks import channel_names
from dcd_ext.errors import UserError, first_cause
from dcd_ext.inference.inputs import check_image
from dcd_ext.predict import runtime
from dcd_ext.readers import read_pipeline

PHASES = ("read", "preprocess", "network", "postprocess", "write")


class FastPipeline(runtime.Pipeline):
    """The runtime's, which also reads what MONAI reads: DICOM, MetaImage, NRRD. Refused is a damaged network."""

    def __init__(self, folder: Path, threads: int | None = None, precision: str = "f32") -> None:
        network = folder / read_pipeline(folder)["network"]
        try:
            super().__init__(folder, threads, precision)
        except ImportError:  # of the inference engine
            raise
        except Exception as error:  # each engine has its own for a damaged file
            found, step = runtime.one_line(error), "export it again, or remove the folder"
            raise UserError("exported network cannot be read", network, "", found, step) from error

    @staticmethod
    def load(files: Sequence[Path]) -> runtime.Volume:
        if all(map(runtime.is_nifti, files)):
            return runtime.read(files)
        _check(files)
        from monai.transforms import LoadImage  # five seconds, for these files only

        image = _call(LoadImage(image_only=True, ensure_channel_first=True), _names(files), files)
        data = runtime.finite(image.numpy(), files[0])
        return runtime.Volume(data, np.asarray(image.affine, float), data.shape[1:])


class MonaiPipeline(runtime.Pipeline):
    """The bundle's own transforms and inferer, as ``python -m monai.bundle run inference`` uses them."""

    def __init__(self, root: Path, device: str = "cpu", threads: int | None = None) -> None:
        # read when torch is imported: threads that wait leave their core to other programs
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import torch
        from monai.utils import str2bool

        from dcd_ext.bundles.folder import BundleFolder
        from dcd_ext.inference.cohort import check_device

        check_device(device)
        torch.set_num_threads(threads or runtime.cores())
        self._torch = torch
        bundle = BundleFolder(root)
        parser = bundle.parser()
        parser["device"] = f"$torch.device('{device}')"
        self._device = device
        self._network = bundle.network().to(device)
        self._inferer = parser.get_parsed_content("inferer")
        # as MONAI's evaluator, whose mixed precision is that of CUDA
        on_gpu = torch.device(device).type == "cuda" and "evaluator::amp" in parser
        self._half = on_gpu and str2bool(str(parser.get_parsed_content("evaluator::amp")))
        self._load, *self._pre = parser.get_parsed_content("preprocessing").transforms
        post = parser.get_parsed_content("postprocessing").transforms
        self._post = [t for t in post if type(t).__name__ != "SaveImaged"]
        self.channels = list(channel_names(bundle.metadata["network_data_format"]["inputs"]["image"]["channel_def"]))

    def read(self, files: Sequence[Path]) -> runtime.Volume:
        """The item as the bundle's first transform loads it."""
        _check(files)
        item = _call(self._load, {"image": _names(files)}, files)
        image = item["image"]
        rank, *sides = (int(n) for n in image.meta.get("dim", [0]))
        shape = tuple(sides[:rank]) if math.prod(sides[:rank]) * len(files) == image.numel() else ()
        return runtime.Volume(item, np.asarray(image.affine, float), shape)

    def preprocess(self, volume: runtime.Volume) -> tuple[Any, Any]:
        """The network's input (M, X, Y, Z), and the item that leads back."""
        item: Any = volume.data
        for transform in self._pre:
            item = _call(transform, item, ())
        if len(item["image"]) != len(self.channels):
            found = f"expected {len(self.channels)} channels, found {len(item['image'])}"
            raise runtime.PredictError(f"wrong number of channels – {found}")
        return item["image"], item

    def network(self, data: Any, at_a_time: int | None = None) -> Any:
        """Scores (C, X, Y, Z); how many windows are computed at once is the bundle's own setting."""
        # for the network alone: SciPy's KDTree, which MONAI's surface distances use, recurses without end in this mode
        self._torch.set_flush_denormal(True)
        try:
            with self._torch.inference_mode(), self._torch.autocast("cuda", enabled=self._half):
                return self._inferer(data.as_tensor()[None].to(self._device), self._network)[0].cpu()
        finally:
            self._torch.set_flush_denormal(False)

    def postprocess(self, scores: Any, steps: Any) -> np.ndarray:  # type: ignore[override]
        """Label map on the image's grid."""
        from monai.data import MetaTensor

        item = {**steps, "pred": MetaTensor(scores, meta=steps["image"].meta)}
        for transform in self._post:
            item = _call(transform, item, ())
        return item["pred"][0].numpy().astype(np.uint8)


def _check(files: Sequence[Path]) -> None:
    """What inference checks before it loads a file, of DICOM that it is one evenly spaced volume."""
    try:
        for file in files:
            check_image(str(file))
    except UserError as error:
        raise runtime.PredictError(str(error)) from error


def _names(files: Sequence[Path]) -> Any:
    return [str(file) for file in files] if len(files) > 1 else str(files[0])


def _call(transform: Any, value: Any, files: Sequence[Path]) -> Any:
    """Run a MONAI transform; its error in one line."""
    try:
        return transform(value)
    except Exception as error:  # whatever a damaged file provokes
        where = ", ".join(map(str, files)) or type(transform).__name__
        found = runtime.one_line(first_cause(error))
        raise runtime.PredictError(f"cannot use the image – {where} – {found}") from error
