"""Results come in the order of the jobs, whichever is finished first; no worker outlives the main process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


def leave_a_mark(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_workers_end_with_a_main_process_that_is_killed(tmp_path):
    call = "map_processes(leave_a_mark, [Path(sys.argv[1])] * 2, 'jobs', 2)"
    program = "import sys; from pathlib import Path; from dcd_ext.parallel import map_processes\n"
    program += f"from tests.test_parallel import leave_a_mark\nif __name__ == '__main__': {call}"
    root = Path(__file__).parents[1]
    main = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    workers = [psutil.Process(int(mark.name)) for mark in tmp_path.iterdir()]
    main.kill()
    main.wait()
    _, left = psutil.wait_procs(workers, timeout=20)
    left = [worker for worker in left if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    for worker in left:
        worker.kill()
    assert len(workers) == 2 and not left
