"""What a backend costs on this machine: seconds until it is ready, and seconds of a case."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dcd_ext.errors import UserError
from dcd_ext.predict import runtime

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# beside a first case as long as this, what is not the case does not matter
_LONG_S = 5.0


class Cost(NamedTuple):
    """Seconds of a backend."""

    start: float  # importing the engine, reading and compiling the network
    case: float  # an image of two windows

    def of(self, cases: int) -> float:
        """Of a command."""
        return self.start + cases * self.case


def measure(folder: Path, threads: int, precision: str) -> Cost:
    """Cost of a standalone folder's network, in a process that has imported no engine yet, and gives its memory back.

    Raises:
        UserError: if it does not run.
    """
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()", str(folder), str(threads), precision]
    paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        raise UserError("network does not run", folder, "a result", reason, "choose another --backend")
    return Cost(*json.loads(result.stdout))


def measure_here(folder: Path, threads: int, precision: str) -> Cost:
    """The same, in this process."""
    started = time.perf_counter()
    pipeline = runtime.Pipeline(folder, threads, precision)
    first, *others = pipeline.window.size
    shape = (len(pipeline.channels), first + first // 2, *others)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    built = time.perf_counter()
    pipeline.network(data)  # compiles
    once = time.perf_counter()
    if once - built > _LONG_S:
        return Cost(built - started, once - built)
    pipeline.network(data)
    case = time.perf_counter() - once
    return Cost(once - started - case, case)


def _main() -> None:
    folder, threads, precision = sys.argv[1:]
    print(json.dumps(measure_here(Path(folder), int(threads), precision)))
