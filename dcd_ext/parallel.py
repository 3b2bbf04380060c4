"""Run one function over many cases: processes for computing, threads for reading, with a progress bar."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from dcd_ext.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Number of cores this process may use, which a scheduler or ``taskset`` may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_threads(work: Callable[[Job], Result], jobs: Sequence[Job], title: str) -> list[Result]:
    """Results of ``work`` in the order of ``jobs``; for reading and unzipping, which mostly wait outside Python."""
    return thread_map(work, jobs, desc=title, max_workers=cores(), unit="case", dynamic_ncols=True, tqdm_class=tqdm)


def map_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], title: str, workers: int | None = None
) -> list[Result]:
    """Results of ``work`` in the order of ``jobs``, from fresh processes, or from this one for a single worker.

    ``work`` is a module-level function, ``jobs`` are small and picklable. The first error ends the whole call.
    Refused if a process is killed, most often for lack of memory.
    """
    workers = min(workers or cores(), len(jobs))
    show = partial(tqdm, total=len(jobs), desc=title, unit="case", dynamic_ncols=True)
    if workers < 2:
        return list(show(map(work, jobs)))
    # not tqdm's process_map: it forks, which can dead-lock a process that holds torch's threads
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent) as pool:
            return list(show(pool.map(work, jobs)))
    except BrokenProcessPool as error:
        expected, step = f"{workers} processes with enough memory", "start again with fewer; finished cases are kept"
        raise UserError("a worker process was killed", title, expected, "one that ended abruptly", step) from error


def _die_with_parent() -> None:
    """End this worker when the main process is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
