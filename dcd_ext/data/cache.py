"""Choose how much of a data set MONAI's ``CacheDataset`` may keep: measured cases against free memory."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcd_ext.data.cases import DATALIST_FILE, read_case, read_datalist
from dcd_ext.data.check_report import CHECK_FILE, read_check
from dcd_ext.data.memory import CACHE_SHARE, available_memory
from dcd_ext.data.nifti import open_image
from dcd_ext.errors import UserError

logger = logging.getLogger(__name__)
_SAMPLE = 3
_GIB = 2**30

Case = Mapping[str, Any]


def choose_cache_rate(
    cases: Sequence[Case],
    transform: Callable[[dict[str, Any]], Any],
    dataset_dir: str | Path = ".",
    share: float = CACHE_SHARE,
) -> float:
    """The ``cache_rate``, in steps of 0.01, with which the cache fits the memory there is; logs it and the reason.

    Three cases, spread over the list, are loaded and transformed, because resampling and cropping change a case's
    size several times over. Where ``dcd check`` has counted the voxels of the whole set, the sample only says how
    much larger or smaller a case becomes, so that an unusually large case in it does no harm. In a distributed run
    every process holds a cache of its own, and all take the same rate.

    Args:
        cases: all entries that will be cached, training and validation.
        transform: the deterministic transforms, whose result is cached.
        dataset_dir: folder of ``datalist.json`` and ``check.json``; neither has to exist.
        share: part of the available memory that the caches may take; the rest is for the network and the workers.
    """
    from ignite import distributed as idist  # takes seconds, as torch does; preparing and checking data do without

    if not cases:
        return 0.0
    needed, how = _estimate(cases, transform, Path(dataset_dir))
    # also a barrier: no process fills its cache while another still measures
    of_all: Any = idist.all_gather(available_memory())
    available, processes = min(of_all), idist.get_nproc_per_node()
    allowed = share * available / processes
    rate = 1.0 if needed <= allowed else math.floor(100 * allowed / needed) / 100
    where = f" in each of {processes} processes" if processes > 1 else ""
    need = f"a full cache of {len(cases)} cases needs {needed / _GIB:.2f} GiB{where} ({how})"
    room = f"{100 * share:g} % of the {available / _GIB:.2f} GiB available may be used"
    logger.info("cache_rate %.2f: %s; %s", rate, need, room)
    return rate


def cached_bytes(item: Mapping[str, Any]) -> int:
    """Memory of a transformed case in bytes: its tensors and arrays, contiguous as ``CacheDataset`` keeps them."""
    # torch's tensors tell it, too
    return sum(value.nbytes for value in item.values() if hasattr(value, "nbytes"))


def _estimate(cases: Sequence[Case], transform: Callable, folder: Path) -> tuple[float, str]:
    """Bytes of a full cache, and how they were found."""
    last = len(cases) - 1
    numbers = sorted({round(i * last / (_SAMPLE - 1)) for i in range(_SAMPLE)})
    sample = [cases[number] for number in numbers]
    measured = sum(cached_bytes(transform(dict(case))) for case in sample)
    stored_mean = _checked_mean(folder)
    if stored_mean is None:
        return measured / len(sample) * len(cases), f"measured on {len(sample)}"
    factor = measured / sum(_stored_bytes(case) for case in sample)
    text = f"{CHECK_FILE} times {factor:.2f}, measured on {len(sample)}"
    return factor * stored_mean * len(cases), text


def _stored_bytes(case: Case) -> int:
    """Bytes of a case as ``dcd check`` counts them: every voxel of every file as float32."""
    files = read_case(case, Path())
    return sum(4 * math.prod(open_image(file).shape) for file in (*files.images, files.label) if file)


def _checked_mean(folder: Path) -> float | None:
    """Mean bytes per training case according to ``check.json``; None where it is absent or of another data list."""
    try:
        return read_check(folder)["cache_bytes"] / len(read_datalist(folder / DATALIST_FILE)["training"]) or None
    except (UserError, ZeroDivisionError):
        return None
