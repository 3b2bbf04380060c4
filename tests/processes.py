"""Run ``python -m MODULE`` in a process of its own: started anew, or forked from one that has imported MONAI already.

Importing MONAI takes longer than what most tests run. A forked process is otherwise as fresh as a user's: it has its
own directory, environment, arguments, output and exit code.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["monai.bundle", "dynamic_network_architectures.architectures.unet"])


def start_module(
    module: str,
    arguments: Sequence[object],
    cwd: str | Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Start Python anew.

    Args:
        module: such as ``monai.bundle``.
        arguments: its command line.
        cwd: the directory to run in.
        environment: added to this process's environment.
        timeout: seconds, after which the process is killed and ``subprocess.TimeoutExpired`` is raised.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=variables, timeout=timeout)


def fork_module(
    module: str,
    arguments: Sequence[object],
    cwd: str | Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """The same as :func:`start_module`, without the seconds of the import.

    Not for what is read before or while MONAI is imported, such as ``PYTHONPATH`` and ``HF_HOME``.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = start_fork(module, arguments, cwd, folder, environment)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired([module, *arguments], timeout)
        printed = [Path(folder, name).read_text("utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([module, *arguments], process.exitcode, *printed)


def start_fork(
    module: str,
    arguments: Sequence[object],
    cwd: str | Path,
    output: str | Path,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Start what :func:`fork_module` runs, and return the process; it prints to files in the folder ``output``."""
    words = [str(argument) for argument in arguments]
    variables = {**os.environ, **(environment or {})}
    process = SERVER.Process(target=_run, args=(module, words, str(cwd), variables, str(output)))
    process.start()
    return process


def _run(module: str, arguments: list[str], cwd: str, environment: dict[str, str], folder: str) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
    multiprocessing.set_start_method(None, force=True)  # Python's own, for the workers of data loaders
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    sys.path.insert(0, cwd)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
