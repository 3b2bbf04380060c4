"""Everything that makes a training resumable and keeps its results, as one entry of a config's handler list."""

import os
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine

from dcd_ext.handlers.checkpoints import Checkpoints
from dcd_ext.handlers.epoch_seed import EpochSeed
from dcd_ext.handlers.training_record import TrainingRecord


class ResumableRun:
    """A run that is killed and resumed ends with the weights, to the last bit, of one that was not.

    Three handlers act together: :class:`EpochSeed` makes an epoch's randomness independent of the epochs before it,
    :class:`Checkpoints` writes ``model.pt`` and ``checkpoint_last.pt``, and :class:`TrainingRecord` writes
    ``training.json``. Put it after the ``ValidationHandler``.

    Args:
        output_dir: folder of ``checkpoint_last.pt`` and ``training.json``.
        ckpt_dir: folder of ``model.pt``, the best weights.
        state: what a resumed run has to restore; see :class:`Checkpoints`.
        validator: the evaluator, whose key metric decides which weights are the best.
        seed: the run's seed.
        resume: continue from ``checkpoint_last.pt``.
    """

    def __init__(
        self,
        output_dir: str,
        ckpt_dir: str,
        state: Mapping[str, Any],
        validator: Engine,
        seed: int = 0,
        resume: bool = False,
    ) -> None:
        self.handlers = (
            EpochSeed(seed),
            Checkpoints(output_dir, ckpt_dir, state, validator, resume),
            TrainingRecord(os.path.join(output_dir, "training.json"), validator),
        )

    def attach(self, engine: Engine) -> None:
        """Register the three with a ``monai.engines.SupervisedTrainer``."""
        for handler in self.handlers:
            handler.attach(engine)
