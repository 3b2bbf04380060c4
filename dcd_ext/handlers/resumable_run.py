"""Everything that makes a training look after itself, as one entry of a config's handler list."""

import os
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events

from dcd_ext.errors import UserError
from dcd_ext.handlers.checkpoints import Checkpoints
from dcd_ext.handlers.epoch_seed import EpochSeed
from dcd_ext.handlers.run import Run
from dcd_ext.handlers.stop_on_non_finite import StopOnNonFinite
from dcd_ext.handlers.stop_on_sigterm import StopOnSigterm
from dcd_ext.handlers.training_record import TrainingRecord


class ResumableRun:
    """A run that is killed and resumed ends with the weights, to the last bit, of one that was not.

    Handlers act together: :class:`EpochSeed` makes an epoch's randomness independent of the epochs before it,
    :class:`Checkpoints` writes ``model.pt`` and ``checkpoint_last.pt``, :class:`TrainingRecord` writes
    ``training.json``, :class:`StopOnNonFinite` ends a run that diverged and :class:`StopOnSigterm` one that a scheduler
    asks to end. A :class:`Run` keeps others out of the folders. Put it after the ``ValidationHandler``.

    Args:
        output_dir: folder of ``checkpoint_last.pt`` and ``training.json``.
        ckpt_dir: folder of ``model.pt``, the best weights.
        state: what a resumed run has to restore; see :class:`Checkpoints`.
        validator: the evaluator, whose key metric decides which weights are the best. It runs after the last epoch,
            whatever the interval of the ``ValidationHandler``.
        resume: continue from ``checkpoint_last.pt``; see :class:`Checkpoints`.
        run: what the config's ``prepare_run`` returned.
    """

    def __init__(
        self,
        output_dir: str,
        ckpt_dir: str,
        state: Mapping[str, Any],
        validator: Any,
        seed: int = 0,
        resume: bool | str = False,
        run: Run | None = None,
    ) -> None:
        self.run = run or Run()
        self.validator = validator
        self._folders = (output_dir, ckpt_dir, resume)
        record = TrainingRecord(os.path.join(output_dir, "training.json"), validator)
        checkpoints = Checkpoints(output_dir, ckpt_dir, state, validator, resume, self.run, record)
        self.handlers = (
            EpochSeed(seed),
            StopOnNonFinite(checkpoints.path),
            # before the checkpoint: a run killed between the two repeats the epoch and replaces its record
            record,
            checkpoints,
            StopOnSigterm(checkpoints.save, [validator.data_loader]),
        )

    def attach(self, engine: Engine) -> None:
        """Register all with a ``monai.engines.SupervisedTrainer``."""
        if engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        for handler in self.handlers:
            handler.attach(engine)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        # what a GPU recorded of a validation is memory that the training's next step may need
        if forget := getattr(getattr(self.validator, "inferer", None), "forget", None):
            self.validator.add_event_handler(Events.COMPLETED, forget)

    def started(self, engine: Any) -> None:
        """Hold the folders, unless the config did so before it read the data; refuse epochs that end within a step."""
        steps, length = getattr(engine, "accumulation_steps", 1), engine.state.epoch_length
        if length and length % steps:
            step = "change --iterations_per_epoch or --train::trainer::accumulation_steps"
            raise UserError("an epoch ends within a step", "config", f"a multiple of {steps} iterations", length, step)
        self.run.claim(*self._folders)

    def __call__(self, engine: Engine) -> None:
        """Validate the last epoch, unless that was done."""
        if engine.state.epoch == engine.state.max_epochs and self.validator.state.epoch != engine.state.epoch:
            self.validator.run(engine.state.epoch)

    def completed(self, _engine: Engine) -> None:
        self.run.release()
