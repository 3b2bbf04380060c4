"""Synthetic data sets in the published folder layouts, so that everything runs without any real data.

Every case draws from its own seeded generator: the same seed gives the same bytes whatever the number of processes.
"""

from dataclasses import dataclass
from pathlib import Path

from dcd_ext.data.phantom_layouts import write_brats_case, write_isles_case, write_msd_case, write_msd_index
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder
from dcd_ext.parallel import map_processes

_DEFAULT_SHAPES = {"brats24": (64, 64, 48), "isles22": (48, 48, 32), "msd": (35, 50, 36)}
LAYOUTS = tuple(_DEFAULT_SHAPES)


@dataclass(frozen=True)
class PhantomSpec:
    """What to write."""

    root: Path  # folder that receives the cases
    layout: str = "brats24"  # one of LAYOUTS
    cases: int = 10  # labelled scans
    test_cases: int = 0  # further scans without labels
    shape: tuple[int, int, int] | None = None  # voxels along x, y, z (of the DWI for isles22); None: a small default
    seed: int = 0
    flair_spacing: tuple[float, float, float] = (0.875, 0.875, 5.0)  # in mm; ISLES-2022 has about 0.45, 0.45, 5


def write_phantoms(spec: PhantomSpec, workers: int | None = None) -> None:
    """Write a synthetic data set, in ``workers`` processes; None takes the cores this process may use.

    Raises:
        UserError: for an unknown layout, a count below one, a shape too small to hold a tumour, or an output folder
            that cannot be written.
    """
    again = "see dcd phantoms --help"
    if spec.layout not in LAYOUTS:
        raise UserError("unknown layout", "--layout", " or ".join(LAYOUTS), spec.layout, again)
    if spec.cases < 1 or spec.test_cases < 0:
        raise UserError("no cases to write", "--cases", "at least 1", spec.cases, again)
    if spec.shape and min(spec.shape) < 24:
        raise UserError("the phantom is too small for its structures", "--shape", "24 or more", spec.shape, again)
    make_folder(spec.root)
    jobs = [(spec, index) for index in range(spec.cases + spec.test_cases)]
    if len(jobs) < 8:
        workers = 1  # starting processes takes longer than a few small cases
    map_processes(_write_case, jobs, "phantoms", workers)
    if spec.layout == "msd":
        write_msd_index(spec.root, spec.cases, spec.test_cases)


def _write_case(job: tuple[PhantomSpec, int]) -> None:
    """Write one case of any layout."""
    spec, index = job
    shape, labelled = spec.shape or _DEFAULT_SHAPES[spec.layout], index < spec.cases
    if spec.layout == "isles22":
        write_isles_case(spec.root, spec.seed, index, shape, labelled, spec.flair_spacing)
    else:
        write = write_brats_case if spec.layout == "brats24" else write_msd_case
        write(spec.root, spec.seed, index, shape, labelled)
