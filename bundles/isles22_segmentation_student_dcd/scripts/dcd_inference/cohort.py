"""Run a network over cases so that one that fails does not stop the others."""

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import LoadImage
from monai.utils import ImageMetaKey

from dcd_inference.errors import UserError
from dcd_inference.inputs import all_images, check_image
from dcd_inference.names import refuse_collisions
from dcd_inference.io import write_json

# file systems take 255; the names of results are longer
NAME_BYTES = 220


class CohortDataset(Dataset):
    """MONAI's ``Dataset``, in which a case that cannot be loaded becomes ``{"case": name, "failed": reason}``.

    Args:
        data: cases with ``image`` (a path, or one per channel) and ``case``, which also names its results: it takes the
            place of the file's name in the image's metadata, from which MONAI names what it saves.
        transform: loads and preprocesses a case.
        channels: what the network expects.

    Refused if the results of two cases would overwrite each other.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable, channels: int | None = None) -> None:
        super().__init__(data, transform)
        self.channels = channels
        refuse_collisions([case["case"] for case in data], [all_images(dict(case))[0] for case in data])

    def _transform(self, index: int) -> dict[str, Any]:
        case = dict(self.data[index])
        files = all_images(case)
        try:
            if len(os.fsencode(case["case"])) > NAME_BYTES:
                raise UserError("name too long", files[0], f"at most {NAME_BYTES} bytes", case["case"], "rename it")
            for file in files:
                check_image(file)
            item: Any = self.transform(case)
            self._check_shape(item["image"].shape, ", ".join(files))
            item["image"].meta[ImageMetaKey.FILENAME_OR_OBJ] = case["case"] + ".nii.gz"
            return {**item, "file": files[0]}
        except Exception as error:  # a damaged file raises one of many types in nibabel, zlib, ITK and MONAI
            return {"case": case["case"], "failed": reason(error, files)}

    def _check_shape(self, shape: Sequence[int], where: str) -> None:
        if len(shape) != 4:
            found = f"{len(shape) - 1} dimensions"
            raise UserError("no volume", where, "three dimensions", found, "leave the case out")
        if self.channels is not None and shape[0] != self.channels:
            step = "pass one file per channel, or one file with all of them"
            raise UserError("wrong number of channels", where, self.channels, shape[0], step)


class CohortEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` over a :class:`CohortDataset`, one case per batch.

    A case that fails, wherever, is logged in one line and kept in ``failures`` (name -> reason); batch and output of
    its iteration are empty lists.
    """

    failures: dict[str, str]

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Forget earlier runs, then run."""
        self.failures = {}
        super().run(global_epoch)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> Any:
        case = batchdata["case"][0]
        why = batchdata["failed"][0] if "failed" in batchdata else ""
        if not why:
            try:
                return super()._iteration(engine, batchdata)
            except Exception as error:  # too little memory, a full disk, a network that takes no such size
                why = reason(error, [batchdata["file"][0]])
        self.failures[case] = why
        self.logger.error(f"case {case} failed – {why}")
        engine.state.batch = []
        return []


def check_device(device: str | torch.device) -> None:
    """Refuse a device that this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:  # as the build of torch is
        found = f"{device} ({str(error).splitlines()[0]})"
        raise UserError("no such device", "--device", "cpu, or a GPU that torch finds", found, "correct it") from error


def segment(evaluator: CohortEvaluator, output_dir: str, total: int) -> None:
    """Run an inference; failed cases and their reasons are written to ``<output_dir>/failed_cases.json``.

    Under ``torchrun`` every process has its share of the ``total`` cases, and the first one writes. The others go on
    where one has failed; all of them end with the same :class:`UserError`.
    """
    path = Path(output_dir, "failed_cases.json")
    if together := int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        # one process may wait for hours until another has finished its share
        dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    try:
        evaluator.run()
    except Exception as error:  # not of a case: weights that do not fit, say
        raise UserError("inference stopped", output_dir, next_step=reason(error)) from error
    shares: list[Any] = [evaluator.failures]
    if dist.is_initialized():
        shares = [None] * dist.get_world_size()
        dist.all_gather_object(shares, evaluator.failures)
    failures = {case: why for share in shares for case, why in share.items()}
    if int(os.environ.get("RANK", 0)) == 0:
        path.unlink(missing_ok=True)
        if failures:
            write_json(dict(sorted(failures.items())), path)
    if together:
        dist.barrier()  # torchrun ends all processes as soon as one has failed
        dist.destroy_process_group()
    if failures:
        raise UserError(f"{len(failures)} of {total} cases failed", path, next_step="the file says why")


def reason(error: BaseException, files: Sequence[str] = ()) -> str:
    """What went wrong in one line, with the file: MONAI wraps errors several times over, and names it nowhere."""
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    if isinstance(error, UserError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    lines[:2] = [" ".join(lines[:2])] if lines[0].endswith(":") else lines[:2]
    # MONAI's writer puts the traceback of what went wrong into its message
    text = lines[-1] if any(line.startswith("Traceback") for line in lines) else f"{type(error).__name__}: {lines[0]}"
    return " – ".join([*([_culprit(files)] if files else []), text])


def _culprit(files: Sequence[str]) -> str:
    """The first file that cannot be loaded by itself, or all of them."""
    for file in files if len(files) > 1 else ():
        try:
            LoadImage()(file)
        except Exception:
            return file
    return ", ".join(files)
