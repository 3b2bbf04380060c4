"""Find the widest student that segments a volume on this machine within a budget of time and memory."""

import math
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from monai.transforms import EnsureChannelFirst, LoadImage, Orientation, Spacing

from dcd_ext.data.memory import PeakMemory
from dcd_ext.errors import UserError
from dcd_ext.networks import count_parameters
from dcd_ext.students.teacher import TeacherBundle
from dcd_ext.students.widths import narrow
from dcd_ext.tables import Table
from dcd_ext.tensors import plain_tensor

# what is segmented: a file, or noise of a shape
Volume: TypeAlias = Path | tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """A student of one width, with its cost: seconds per volume without start-up, peak memory of the process in GiB."""

    factor: int
    definition: dict[str, Any]
    parameters: int
    seconds: float
    ram: float


@dataclass(frozen=True)
class Budget:
    """Limits per volume; None is no limit. ``threads`` as for ``torch.set_num_threads``."""

    max_seconds: float | None
    max_ram: float | None
    threads: int | None = None

    def holds(self, measured: Measured) -> bool:
        slow = self.max_seconds is not None and measured.seconds > self.max_seconds
        return not slow and (self.max_ram is None or measured.ram <= self.max_ram)

    def __str__(self) -> str:
        parts = [(self.max_seconds, "s"), (self.max_ram, "GiB")]
        return " and ".join(f"{limit:g} {unit}" for limit, unit in parts if limit is not None)


def widths(teacher: TeacherBundle, width_args: Sequence[str] | None) -> dict[int, dict[str, Any]]:
    """Definitions by reduction factor 1, 2, 4 …, until nothing becomes narrower."""
    found: dict[int, dict[str, Any]] = {}
    for factor in (2**i for i in range(8)):
        definition = narrow(teacher, factor, width_args)
        if definition in found.values():
            break
        found[factor] = definition
    return found


def measure(
    teacher: TeacherBundle, factor: int, definition: dict[str, Any], volume: Volume, budget: Budget
) -> Measured:
    """Segment the volume with the bundle's inferer, in a process of its own."""
    parameters = count_parameters(teacher.build(definition))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            seconds, ram = pool.submit(_segment, teacher.reopen, definition, volume, budget.threads).result()
        except BrokenProcessPool as error:  # more memory than there is
            where, step = f"reduction {factor}", "use a smaller --shape or --image"
            raise UserError("the process that measures was killed", where, "enough memory", "none", step) from error
    return Measured(factor, definition, parameters, seconds, ram)


def choose(teacher: TeacherBundle, measured: Sequence[Measured], volume: Volume, budget: Budget) -> Measured:
    """The widest student within the budget, which meets it a second time; refused if none does."""
    for candidate in sorted(measured, key=lambda m: m.factor):
        if budget.holds(candidate) and budget.holds(
            measure(teacher, candidate.factor, candidate.definition, volume, budget)
        ):
            return candidate
    least = max(measured, key=lambda m: m.factor)
    needs = f"{least.seconds:.2f} s and {least.ram:.2f} GiB at reduction {least.factor}"
    step = "raise --max_seconds or --max_ram, or use another network"
    raise UserError("no width fits the budget", teacher.root.name, f"at most {budget}", needs, step)


def table(measured: Sequence[Measured], budget: Budget) -> Table:
    """For a terminal."""
    rows = [
        [str(m.factor), f"{m.parameters:,}", f"{m.seconds:.2f}", f"{m.ram:.2f}", "yes" if budget.holds(m) else "no"]
        for m in measured
    ]
    return Table("", ["reduction", "parameters", "seconds", "GiB", f"within {budget}"], rows)


def _segment(
    teacher: dict[str, Any], definition: dict[str, Any], volume: Volume, threads: int | None
) -> tuple[float, float]:
    """Seconds and GiB; runs in the process that is measured."""
    memory = PeakMemory()
    if threads:
        torch.set_num_threads(threads)
    bundle = TeacherBundle(**teacher)
    network, inferer = bundle.build(definition), bundle.inferer()
    _read(bundle, volume)  # MONAI imports its readers at the first image
    start = time.perf_counter()
    with torch.inference_mode():
        inferer(_read(bundle, volume), network)
    return time.perf_counter() - start, memory.gib() or math.nan


def _read(bundle: TeacherBundle, volume: Volume) -> torch.Tensor:
    """The volume (1, C, X, Y, Z), turned and resampled as the bundle's inference does."""
    if isinstance(volume, tuple):
        return torch.rand((1, bundle.channels, *volume))
    try:
        image = EnsureChannelFirst()(LoadImage()(volume))
    except Exception as error:  # MONAI's readers raise a dozen types
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
        raise UserError("unreadable image", volume, "an image MONAI reads", found, "correct --image") from error
    if axcodes := bundle.transform_argument("Orientationd", "axcodes"):
        image = Orientation(axcodes, labels=None)(image)
    if pixdim := bundle.transform_argument("Spacingd", "pixdim"):
        image = Spacing(pixdim)(image)
    # the cost of a sequence does not depend on what it shows
    return plain_tensor(image)[torch.arange(bundle.channels) % image.shape[0]][None]
