"""Results come in the order of the jobs, whichever is finished first."""

import time
from pathlib import Path

import pytest

from dcd_ext.parallel import map_processes, map_threads


def finish_after_the_next(job: tuple[Path, int]) -> int:
    """Wait until the job after this one has left its mark; the last one waits for none."""
    folder, number = job
    end = time.monotonic() + 60
    while number < 1 and not (folder / str(number + 1)).exists() and time.monotonic() < end:
        time.sleep(0.01)
    (folder / str(number)).touch()
    return number


@pytest.mark.parametrize("mapped", [map_threads, lambda *a: map_processes(*a, workers=2)], ids=["threads", "processes"])
def test_the_first_job_ends_last_and_is_still_the_first_result(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr("dcd_ext.parallel.cores", lambda: 2)
    assert mapped(finish_after_the_next, [(tmp_path, 0), (tmp_path, 1)], "jobs") == [0, 1]
