"""End a training on a scheduler's request, so that it can be resumed where it was."""

import functools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events

from dcd_ext.distributed import any_process, destroy_process_group

# 128 + the number of the signal, which is also what a shell reports for a process that the signal ended
EXIT_CODE = 128 + signal.SIGTERM


class StopOnSigterm:
    """On SIGTERM: finishes the step, calls ``save`` and exits with :data:`EXIT_CODE`.

    In an epoch's last step, or its validation, the epoch is completed first. All processes of a distributed run stop
    at the same step, whichever of them was told. Attach it last, after the handler that writes checkpoints.

    Args:
        save: writes what a resumed run needs; called in all processes, with the engine and the number of steps that
            this epoch had; not after its last, when it was saved already.
        loaders: further data loaders whose workers have to outlive a signal that is sent to all processes of a job.
    """

    def __init__(self, save: Callable[[Any, int], None], loaders: Any = ()) -> None:
        self.save = save
        self.loaders = loaders
        self._asked = self._stopping = False
        self._previous: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.SupervisedTrainer``."""
        if engine.has_event_handler(self, Events.ITERATION_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED | Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.TERMINATE, self.terminated)
        engine.add_event_handler(Events.COMPLETED, self.restore)

    def started(self, engine: Engine) -> None:
        """From now on, remember the signal; Python allows that in the main thread only."""
        for loader in (getattr(engine, "data_loader", None), *self.loaders):
            if getattr(loader, "num_workers", 0) > 0 and hasattr(signal, "sigwaitinfo"):
                loader.worker_init_fn = functools.partial(_outlive, loader.worker_init_fn, os.getpid())
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def __call__(self, engine: Engine) -> None:
        """Stop after this step or epoch, if a process was asked to and something is left to do."""
        state: Any = engine.state
        last_step = state.iteration % state.epoch_length == 0
        if last_step and (state.epoch == state.max_epochs or engine.last_event_name == Events.ITERATION_COMPLETED):
            return
        if state.iteration % state.epoch_length % getattr(engine, "accumulation_steps", 1):
            return  # gradients of a step that is not done are in no checkpoint
        if any_process(self._asked, getattr(state, "device", "cpu")):
            self._stopping = True
            engine.terminate(skip_completed=True)

    def terminated(self, engine: Any) -> None:
        """Save, once all handlers of the step are done, and leave."""
        self.restore(engine)
        if self._stopping:
            if steps := engine.state.iteration % engine.state.epoch_length:
                self.save(engine, steps)
            engine.logger.warning(f"stopped by SIGTERM in epoch {engine.state.epoch}; --resume True goes on from here")
            destroy_process_group(engine.network)
            raise SystemExit(EXIT_CODE)

    def restore(self, _engine: Engine) -> None:
        """Give the signal back its former meaning."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None


def _outlive(initialise: Callable[[int], None] | None, parent: int, worker: int) -> None:
    """In a worker: only the training process, which needs it for its last step, may end it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initialise is not None:
        initialise(worker)


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
