"""Run one function over many cases: processes for number crunching, threads for reading, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from dcd_ext.errors import UserError

__all__ = ["cores", "map_processes", "map_threads", "relayed"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Number of cores this process may use, which a scheduler or ``taskset`` may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def relayed(text: str) -> UserError:
    """Rebuild the error whose complete text came back from another process.

    Args:
        text: ``str`` of a ``UserError``.
    """
    error = UserError.__new__(UserError)
    error.args = (text,)
    return error


def map_threads(work: Callable[[Job], Result], jobs: Sequence[Job], title: str) -> list[Result]:
    """Run ``work`` over ``jobs`` in threads: reading and unzipping NIfTI files mostly waits outside the interpreter.

    Args:
        work: called once per job.
        jobs: the inputs.
        title: text in front of the progress bar.

    Returns:
        Results in the order of the jobs.
    """
    with ThreadPoolExecutor(cores()) as pool:
        return _collect(pool, work, jobs, title, cores())


def map_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], title: str, workers: int | None = None
) -> list[Result]:
    """Run ``work`` over ``jobs`` in fresh processes, or right here for a single worker.

    At most two jobs per process are handed out ahead, so that nothing piles up in memory and Ctrl-C ends soon.

    Args:
        work: a module-level function; it returns the text of a failure (see ``relayed``) instead of raising it, because
            exceptions with their own constructor do not survive the way back.
        jobs: the inputs, small and picklable.
        title: text in front of the progress bar.
        workers: processes; None takes one per core.

    Returns:
        Results in the order of the jobs.

    Raises:
        UserError: when a process is killed, most often for lack of memory.
    """
    workers = min(workers or cores(), len(jobs))
    if workers < 2:
        return [work(job) for job in tqdm(jobs, desc=title, unit="case", dynamic_ncols=True)]
    # spawn, because forking a process that holds torch threads can dead-lock
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent) as pool:
            return _collect(pool, work, jobs, title, 2 * workers)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed",
            title,
            f"{workers} processes with enough memory",
            "one that ended abruptly",
            "start again with fewer --jobs; finished cases are kept",
        ) from error


def _die_with_parent() -> None:
    """End this worker when the main process is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _collect(
    pool: Executor, work: Callable[[Job], Result], jobs: Sequence[Job], title: str, ahead: int
) -> list[Result]:
    """Feed the pool, keeping at most ``ahead`` jobs in it, and gather the results in order."""
    results: list[Any] = [None] * len(jobs)
    running: dict[Future[Result], int] = {}
    queue: Iterator[tuple[int, Job]] = iter(enumerate(jobs))
    with tqdm(total=len(jobs), desc=title, unit="case", dynamic_ncols=True) as bar:
        while True:
            while len(running) < ahead and (item := next(queue, None)) is not None:
                running[pool.submit(work, item[1])] = item[0]
            if not running:
                return results
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                results[running.pop(future)] = future.result()
                bar.update()
