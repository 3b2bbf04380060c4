"""Train and evaluate many runs by their bundles' own commands: resumable, and safe to start twice at once.

What is finished is found again by its files, so that an interrupted command goes on where it was: ``models/trained``
after training, ``metrics.json`` after an evaluation. A lock that the operating system frees with its process keeps a
second command away from a run in progress.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dcd_ext.errors import UserError
from dcd_ext.io import write_json
from dcd_ext.parallel import cores
from dcd_ext.readers import read_json

logger = logging.getLogger(__name__)
# seconds between two looks at runs that another command has taken
_PAUSE = 5.0


@dataclass(frozen=True)
class Run:
    """One training and its evaluations."""

    folder: Path  # receives training.json, logs, checkpoints and models
    bundle: str  # its folder
    files: Sequence[str]  # its train.json and overlays
    options: Mapping[str, Any]  # config entries for all commands
    scores: Mapping[str, str] = field(default_factory=dict)  # validation or test -> subfolder for its metrics.json
    scoring_options: Mapping[str, Any] = field(default_factory=dict)  # further config entries for the evaluations
    teacher: Path | None = None  # folder of the run that has to be trained before

    @property
    def is_ready(self) -> bool:
        """Whether its teacher, if any, is trained."""
        return self.teacher is None or _trained(self.teacher).exists()

    @property
    def is_scored(self) -> bool:
        """Whether all its results are there, which may have been copied without the weights."""
        return all(_is_scored(self.folder / part) for part in self.scores.values())

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and evaluated."""
        return not self.parts_to_score and _trained(self.folder).exists()

    @property
    def parts_to_score(self) -> dict[str, str]:
        """What is not evaluated, or of whose evaluation only a part was copied."""
        return {key: part for key, part in self.scores.items() if not _is_scored(self.folder / part, unreadable=False)}


def _trained(folder: Path) -> Path:
    return folder / "models" / "trained"


def _is_scored(folder: Path, unreadable: bool = True) -> bool:
    """Whether an evaluation is there, and no case of it has failed."""
    path = folder / "metrics.json"
    try:
        return path.exists() and not json.loads(path.read_text("utf-8")).get("failed")
    except (ValueError, AttributeError):  # no object, or half of one: whoever reads it will say so
        return unreadable


def run_all(runs: Sequence[Run], jobs: int = 1) -> dict[Path, UserError]:
    """Complete all runs in their order, ``jobs`` at a time; a failed one does not stop the others.

    The cores are divided among the jobs, unless ``OMP_NUM_THREADS`` is set. A run begun with other options is refused.
    Errors of failed runs are returned by folder, those of runs whose teacher failed among them.
    """
    for run in runs:
        refuse_other_options(run)
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), **os.environ}
    waiting = [run for run in runs if not run.is_finished]
    running: dict[Future[None], Run] = {}
    errors: dict[Path, UserError] = {}
    processes: set[subprocess.Popen] = set()
    stopped = threading.Event()
    bar = tqdm(total=len(runs), initial=len(runs) - len(waiting), desc="runs", unit="run", dynamic_ncols=True)
    with logging_redirect_tqdm(), bar, ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for run in list(waiting):
                    if run.teacher in errors:
                        waiting.remove(run)
                        errors[run.folder] = UserError("no teacher", run.folder, run.teacher, "failed", "see its error")
                    elif len(running) < jobs and run.is_ready and (lock := _lock(run)):
                        waiting.remove(run)
                        logger.info("start %s (%d left, %s)", run.folder, len(waiting), time_to_go(runs, jobs))
                        command = partial(_command, run, environment, processes, stopped)
                        running[pool.submit(_complete, run, lock, command)] = run
                _wait(running, errors, bar)
        except BaseException:
            stopped.set()
            for process in list(processes):  # the pool waits for its threads, and these for their processes
                process.terminate()
            raise
    return errors


def time_to_go(runs: Sequence[Run], jobs: int) -> str:
    """How long the trainings that are left will take, by those that are done: of the same kind, if there are any."""
    seconds = {run.folder: _training_seconds(run) for run in runs}
    done = [run for run in runs if _trained(run.folder).exists() and seconds[run.folder]]
    left = [run for run in runs if not _trained(run.folder).exists()]
    if left and not done:
        return "time unknown until one is done"
    total = 0.0
    for run in left:
        alike = [seconds[other.folder] for other in done if _kind(other) == _kind(run)]
        alike = alike or [seconds[other.folder] for other in done]
        total += max(sum(alike) / len(alike) - seconds[run.folder], 0)
    return f"about {total / jobs / 3600:.1f} h of training to go"


def _training_seconds(run: Run) -> float:
    """Of the epochs trained so far."""
    path = run.folder / "training.json"
    try:
        return float(json.loads(path.read_text("utf-8"))["seconds"]) if path.exists() else 0.0
    except (ValueError, KeyError, TypeError):  # whoever reads it will say so
        return 0.0


def _kind(run: Run) -> dict[str, Any]:
    return {key: value for key, value in _options(run).items() if key != "seed"}


def _wait(running: dict[Future[None], Run], errors: dict[Path, UserError], bar: tqdm) -> None:
    """Wait until a run ends, or for a moment, in which another command may complete one that we wait for."""
    if not running:
        time.sleep(_PAUSE)
    for future in wait(running, timeout=_PAUSE, return_when=FIRST_COMPLETED).done:
        run = running.pop(future)
        try:
            future.result()
        except UserError as error:
            errors[run.folder] = error
            logger.error("%s", error)
        bar.update()


def _lock(run: Run) -> FileLock | None:
    """The run's lock, or None while another command has it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder / "lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _options(run: Run) -> dict[str, Any]:
    """What ``run.json`` keeps."""
    return {"bundle": run.bundle, "files": list(run.files), **{k: str(v) for k, v in run.options.items()}}


def refuse_other_options(run: Run) -> None:
    """Refuse what was trained with other options; where its files lay is none of them: folders are copied."""
    path, wanted = run.folder / "run.json", _options(run)
    if path.exists() and _has_begun(run.folder):
        found = read_json(path, "run", "options of a run", "delete the folder, or choose another --output")
        for key in {**found, **wanted}:
            if _without_folders(key, found.get(key)) != _without_folders(key, wanted.get(key)):
                step = "choose another --output, or delete the folder"
                raise UserError(f"run with another {key}", run.folder, wanted.get(key), found.get(key), step)


def _has_begun(folder: Path) -> bool:
    """Whether there is more than a command's first words: one that refused an option has left nothing to go on with."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return any(path.name not in ("run.json", "lock", ".training.lock") for path in files)


def _without_folders(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folders(key, part) for part in value]
    is_path = key in ("bundle", "files", "dataset_dir", "teacher_ckpt", "prompts")
    return Path(value).name if is_path and isinstance(value, str) else value


def _complete(run: Run, lock: FileLock, command: Callable[..., None]) -> None:
    """Train, or go on training, and evaluate."""
    try:
        refuse_other_options(run)  # another command may have begun it since
        if not (run.folder / "run.json").exists() or not _has_begun(run.folder):
            write_json(_options(run), run.folder / "run.json")
        if not _trained(run.folder).exists():
            if _needs_prompts(run) and not (run.folder / "models" / "prompts.pt").exists():
                command("tune_prompts", run.files, run.folder)
            command("training", run.files, run.folder, resume="auto")
            _trained(run.folder).touch()
        scoring = [*run.files, str(Path(run.bundle) / "configs" / "evaluate.json")]
        for section, part in run.parts_to_score.items():
            command("evaluating", scoring, run.folder / part, section=section, **run.scoring_options)
    finally:
        lock.release()


def _needs_prompts(run: Run) -> bool:
    """FreeKD's overlay brings a command of its own, which trains the prompts."""
    overlays = (read_json(file, None, "config", "correct it") for file in run.files[1:])
    return "prompts" not in run.options and any("tune_prompts" in overlay for overlay in overlays)


def _command(
    run: Run,
    environment: Mapping[str, str],
    processes: set[subprocess.Popen],
    stopped: threading.Event,
    name: str,
    files: Sequence[str],
    output: Path,
    **options: Any,
) -> None:
    """``python -m monai.bundle run`` with a log in ``output``.

    Paths are absolute: MONAI evaluates what starts with ``$``, ``@`` or ``%``, and reads ``2024`` as a number.
    """
    options = {**run.options, "output_dir": output, "ckpt_dir": run.folder / "models", **options}
    options |= {key: value.absolute() for key, value in options.items() if isinstance(value, Path)}
    arguments = [sys.executable, "-m", "monai.bundle", "run", name, "--bundle_root", os.path.abspath(run.bundle)]
    arguments += ["--config_file", str([os.path.abspath(file) for file in files])]
    arguments += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    output.mkdir(parents=True, exist_ok=True)
    log = output / f"{name}.log"
    with (
        open(log, "a", encoding="utf-8") as file,
        subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        processes.add(process)
        if stopped.is_set():  # while this run was between two commands
            process.terminate()
        code = process.wait()
        processes.discard(process)
    if code:
        last = log.read_text("utf-8", errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise UserError(f"{name} failed", log, "exit code 0", f"{code}: {last[0]}", "read the log")
