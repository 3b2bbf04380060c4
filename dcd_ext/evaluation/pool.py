"""Score cases in parallel without biasing the reported inference time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dcd_ext.parallel import cores


class ScoringPool:
    """A few threads (default: one per core, at most 8) that work beside the prediction, or in turns with it.

    Threads are enough: distances, components and gzip release Python's lock. At most ``2 * workers`` jobs are held, so
    that memory does not grow with the number of cases.

    With ``in_turns``, ``workers`` jobs are collected, and run before :meth:`submit` returns. For prediction on a CPU:
    scoring at the same time would slow down the prediction that is being timed.
    """

    def __init__(self, workers: int | None = None, in_turns: bool = False) -> None:
        self.workers = workers or min(cores(), 8)
        self.in_turns = in_turns
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="scoring")
        self._held: list[Callable[[], Any]] = []
        self._running: list[Future] = []
        self._results: list[Any] = []

    def submit(self, job: Callable[[], Any]) -> None:
        """Take a job, which is called once, in some thread; an error in it is raised here by a later call."""
        self._held.append(job)
        if not self.in_turns:
            self._start(unfinished=2 * self.workers - 1)
        elif len(self._held) == self.workers:
            self._start(unfinished=0)

    def finish(self) -> list[Any]:
        """Wait for all jobs; their results, in the order of submission."""
        self._start(unfinished=0)
        self._pool.shutdown()
        return self._results

    def cancel(self) -> None:
        """Drop everything that has not started."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, unfinished: int) -> None:
        """Hand the held jobs to the threads, then wait, oldest first, until at most so many are unfinished."""
        self._running += [self._pool.submit(job) for job in self._held]
        self._held = []
        while len(self._running) > unfinished:
            self._results.append(self._running.pop(0).result())
