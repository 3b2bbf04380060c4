"""ISLES-2022: DWI, ADC and mask onto the FLAIR grid, in parallel, restartable case by case."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import Case
from dcd_ext.data.nifti import open_image, read_label
from dcd_ext.errors import UserError
from dcd_ext.inference.geometry import grid_difference, grid_of
from dcd_ext.inference.names import split_suffix
from dcd_ext.io import make_folder, write_json
from dcd_ext.parallel import map_processes

GRID = "FLAIR"
_DONE = "done.json"
_SETTINGS = {"version": 2, "grid": GRID, "images": "linear", "mask": "nearest", "outside": 0}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """What happened to one case: its files on the FLAIR grid by ``dwi``, ``adc``, ``label``, or the failure's text."""

    files: dict[str, Path] = field(default_factory=dict)
    kept: bool = False
    lost_mask: bool = False
    failure: str = ""


def resample_cases(cases: Sequence[Case], output: Path, workers: int | None = None) -> list[Case]:
    """The cases on the FLAIR grid; those finished in an earlier run, with the same settings and inputs, are kept.

    The FLAIR stays where it is, and so does every file that already lies on its grid; new files go to
    ``<output>/on_flair/<case>``. The published mask is kept under the key ``source_mask``. A case that fails is
    refused when the others are finished.
    """
    root = make_folder(output / "on_flair")
    outcomes = map_processes(_resample_case, [(case, root / case.case) for case in cases], "resampling", workers)
    kept = sum(outcome.kept for outcome in outcomes)
    if kept:
        logger.info("%d of %d cases were finished already", kept, len(cases))
    failed, resampled = [], []
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.failure:
            logger.error("case %s: %s", case.case, outcome.failure)
            failed.append((case.case, outcome.failure))
            continue
        if outcome.lost_mask:
            logger.warning("case %s: no lesion voxel is left on the FLAIR grid", case.case)
        images = (case.images[0], outcome.files["dwi"], outcome.files["adc"])
        extra = {"source_mask": case.label} if case.label is not None else {}
        resampled.append(replace(case, images=images, label=outcome.files.get("label"), extra=extra))
    if failed:
        what, (first, reason) = f"{len(failed)} of {len(cases)} cases could not be resampled", failed[0]
        step = "repair or move these cases and start again; finished cases are kept"
        raise UserError(what, first, "three readable 3D images and a mask", reason, step)
    return resampled


def _resample_case(job: tuple[Case, Path]) -> _Outcome:
    """Resample one case into its folder; runs in another process."""
    try:
        return _resample(*job)
    # a broken file raises one of many types in nibabel, zlib or ITK; it must not stop the other cases
    except Exception as error:
        return _Outcome(failure=(str(error).splitlines() or [type(error).__name__])[0])


def _resample(case: Case, folder: Path) -> _Outcome:
    """Resample one case, or keep it when its marker says it is finished."""
    flair, dwi, adc = case.images
    sources = {"dwi": dwi, "adc": adc} | ({"label": case.label} if case.label else {})
    plan = {key: _target(path, flair, folder) for key, path in sources.items()}
    digest = _digest([flair, *sources.values()])
    done = _read_marker(folder / _DONE)
    if done.get("settings") == digest and all(path.is_file() for path in plan.values()):
        return _Outcome(plan, kept=True, lost_mask=bool(done.get("lost_mask")))
    # ITK takes seconds to import: only where there is something to do
    from dcd_ext.data.resample import limit_itk_to_one_thread, resample_to_grid

    limit_itk_to_one_thread()
    make_folder(folder)
    for leftover in (folder / _DONE, *folder.glob(".tmp-*")):  # of a run with other inputs, or one that was killed
        leftover.unlink(missing_ok=True)
    left = {
        key: resample_to_grid(path, flair, plan[key], is_label=key == "label")
        for key, path in sources.items()
        if plan[key] != path
    }
    lost_mask = left.get("label") == 0 and bool(read_label(sources["label"]).any())
    write_json({"settings": digest, "lost_mask": lost_mask}, folder / _DONE)
    return _Outcome(plan, lost_mask=lost_mask)


def _target(source: Path, flair: Path, folder: Path) -> Path:
    """Where the resampled file goes; the source itself when it already lies on the FLAIR grid."""
    if not grid_difference(grid_of(open_image(flair)), grid_of(open_image(source))):
        return source
    start, _, kind = split_suffix(source.name)[0].rpartition("_")
    return folder / f"{start}_space-{GRID}_{kind}.nii.gz"


def _digest(inputs: Sequence[Path]) -> str:
    """Fingerprint of the settings and of the inputs' names, sizes and times of change."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in inputs]
    return hashlib.sha256(json.dumps([_SETTINGS, files], sort_keys=True).encode()).hexdigest()


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
