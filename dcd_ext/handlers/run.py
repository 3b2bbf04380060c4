"""The run of this process: its data and options, which another run has to share to go on with it, and its folders."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from dcd_ext.distributed import on_main_process
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, remove_orphans, require_writable

logger = logging.getLogger(__name__)
LAST, BEST = "checkpoint_last.pt", "model.pt"


class Run:
    """What tells one run from another, and its hold on the folders it writes to.

    Args:
        fold: the held-out fold, or ``all``.
        datalist_sha256: of ``datalist.json``; None without one.
        config: the entries of the merged config that decide about the weights, as JSON values.
        config_sha256: of these.
        versions: of the packages that compute, by name.
    """

    def __init__(
        self,
        fold: int | str | None = None,
        datalist_sha256: str | None = None,
        config: Mapping[str, Any] | None = None,
        config_sha256: str | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.identity = {
            "fold": fold,
            "datalist_sha256": datalist_sha256,
            "config_sha256": config_sha256,
            "versions": dict(versions or {}),
        }
        self.config = dict(config or {})
        self._locks: list[FileLock] = []
        self._claimed = False

    def claim(self, output_dir: str, ckpt_dir: str, resume: bool | str = False) -> None:
        """Hold both folders for writing until :meth:`release`; calling it again changes nothing.

        What a killed run left half-written is removed, and weights that will be replaced are named. A folder that
        cannot be written to, or in which another process trains, is refused in all processes.
        """
        if not self._claimed:  # not by its locks, which the main process alone has: all of them have to wait for it
            on_main_process(lambda: self._claim(output_dir, ckpt_dir, resume))
            self._claimed = True

    def release(self) -> None:
        """Let others have the folders."""
        self._claimed = False
        while self._locks:
            self._locks.pop().release()

    def _claim(self, output_dir: str, ckpt_dir: str, resume: bool | str) -> None:
        for folder in dict.fromkeys(map(os.path.realpath, (output_dir, ckpt_dir))):
            self._locks.append(_lock(folder))
            remove_orphans(folder)
            require_writable(folder)
        last, best = os.path.join(output_dir, LAST), os.path.join(ckpt_dir, BEST)
        if not resume and (os.path.exists(last) or os.path.exists(best)):
            step = "to keep them, stop now and choose another --output_dir and --ckpt_dir"
            logger.warning("this run replaces the weights of %s in %s; %s", _progress(last), ckpt_dir, step)

    def require_same(self, found: Any, path: str) -> None:
        """Refuse a checkpoint whose entry ``run`` has another fold, data or options; other versions give a warning."""
        if not isinstance(found, Mapping):
            logger.warning("%s does not say with which fold, data and options it was trained", path)
            return
        step = "resume with the options the run was started with, or start a new run in another --output_dir"
        for key in ("fold", "datalist_sha256"):
            if found.get(key) != self.identity[key]:
                what = "checkpoint of another fold" if key == "fold" else "checkpoint of other data"
                raise UserError(what, path, f"{key} {self.identity[key]}", found.get(key), step)
        mine, theirs = dict(_leaves(self.config)), dict(_leaves(found.get("config", {})))
        for key in sorted({key for key, _ in set(mine.items()) ^ set(theirs.items())}):
            expected = f"{key} {mine.get(key, 'not set')}"
            raise UserError("checkpoint of another configuration", path, expected, theirs.get(key, "not set"), step)
        if (versions := found.get("versions")) != self.identity["versions"]:
            logger.warning("resumed with %s, begun with %s: not to the last bit", self.identity["versions"], versions)

    def require_held_out(self, trained: Any, path: str) -> None:
        """Refuse to score weights that were trained on this data list with another fold held out.

        ``trained`` is :func:`dcd_ext.weights.origin_of` the weights.
        """
        if not isinstance(trained, Mapping) or "datalist_sha256" not in trained:
            logger.warning("%s does not say what it was trained on, so perhaps on cases that are scored now", path)
        elif trained.get("datalist_sha256") != self.identity["datalist_sha256"]:
            logger.warning("%s was trained on another datalist.json, perhaps on cases that are scored now", path)
        elif trained.get("fold") != self.identity["fold"]:
            held_out = trained.get("fold")
            step = f"pass --fold {held_out}: the weights were trained on the cases of the other folds"
            raise UserError("weights of another fold", path, f"fold {self.identity['fold']} held out", held_out, step)


def _lock(folder: str) -> FileLock:
    """The folder's lock, which the operating system frees with the process."""
    # one per folder and process, so that a run that ended with an error can be resumed by the same process
    lock = FileLock(make_folder(Path(folder)) / ".training.lock", thread_local=False, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        step = "wait until it has ended, or choose another --output_dir and --ckpt_dir"
        raise UserError("another training is using this folder", folder, next_step=step) from error
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise UserError("cannot write to the folder", folder, "a writable folder", found, "choose another") from error
    return lock


def _progress(path: str) -> str:
    """How far the run came that wrote a checkpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return f"an earlier run ({content['epoch']} of {content['max_epochs']} epochs)"
    except Exception:
        return "an earlier run"


def _leaves(item: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every single value of nested dictionaries and lists as text, by its id."""
    if isinstance(item, dict | list):
        for key, value in item.items() if isinstance(item, dict) else enumerate(item):
            yield from _leaves(value, f"{name}::{key}" if name else str(key))
    else:
        yield name, repr(item)
