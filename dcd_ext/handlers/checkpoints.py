"""Best weights for users and the last state for resuming, both written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.handlers import CheckpointSaver
from torch import nn

from dcd_ext.errors import UserError
from dcd_ext.io import save_checkpoint
from dcd_ext.tensors import unwrap

__all__ = ["BestModelSaver", "ResumeCheckpoint"]


class _AtomicSaver:
    """ignite save handler for one fixed file; MONAI's own writes in place and can leave half a file."""

    def __init__(self, path: str, write: bool) -> None:
        self.path = path
        self.write = write

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        if self.write:
            save_checkpoint(checkpoint, self.path)

    def remove(self, filename: str) -> None:
        """The next write replaces the file."""


class BestModelSaver(CheckpointSaver):
    """Writes ``model.pt``, a plain state dict, whenever the validator's key metric improves.

    Args:
        save_dir: folder of ``model.pt``.
        network: what is validated, i.e. the EMA copy if there is one.
        filename: name of the file.
        write: False in all but one process of a distributed run; the best value is tracked all the same.
    """

    def __init__(self, save_dir: str, network: nn.Module, filename: str = "model.pt", write: bool = True) -> None:
        super().__init__(save_dir, {"model": unwrap(network)}, save_key_metric=True, key_metric_filename=filename)
        assert self._key_metric_checkpoint is not None
        saver: Any = _AtomicSaver(os.path.join(save_dir, filename), write)
        self._key_metric_checkpoint.save_handler = saver

    def state_dict(self) -> dict[str, Any]:
        """Best value so far, so that a resumed run does not overwrite a better ``model.pt``."""
        assert self._key_metric_checkpoint is not None
        return {"saved": [[float(p), f] for p, f in self._key_metric_checkpoint._saved]}

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Take over the best value of an earlier run."""
        super().load_state_dict({"_saved": [Checkpoint.Item(p, f) for p, f in state_dict["saved"]]})


class ResumeCheckpoint:
    """Saves all a run needs to go on, after every epoch, and restores it on request.

    Attach it after the validation handler: the best metric it stores should include this epoch's.

    Args:
        path: the checkpoint file.
        state: named objects with ``state_dict`` and ``load_state_dict``: network, EMA, optimizer, schedule, losses.
            The trainer and its gradient scaler are added when the handler is attached.
        best: the validator's best-model saver, whose best value is kept, too.
        resume: load ``path`` when the run starts.
        save_interval: epochs between two writes.
        write: False in all but one process of a distributed run.

    Raises:
        UserError: if there is nothing to resume from, or the checkpoint belongs to another configuration.
    """

    def __init__(
        self,
        path: str,
        state: Mapping[str, Any],
        best: BestModelSaver | None = None,
        resume: bool = False,
        save_interval: int = 1,
        write: bool = True,
    ) -> None:
        self.path = path
        self.state = dict(state)
        self.best = best
        self.resume = resume
        self.save_interval = save_interval
        self.write = write

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: a ``monai.engines.SupervisedTrainer``.
        """
        if engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            return
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the checkpoint."""
        epoch = engine.state.epoch
        if self.write and (epoch % self.save_interval == 0 or epoch == engine.state.max_epochs):
            content = {name: _state_dict(item) for name, item in self._objects(engine).items()}
            save_checkpoint({**content, "epoch": epoch}, self.path)

    def load(self, engine: Engine) -> None:
        """Restore the run; the engine goes on with the epoch after the saved one."""
        if not os.path.isfile(self.path):
            raise UserError("nothing to resume", self.path, "a checkpoint", "no such file", "run without --resume")
        checkpoint = torch.load(self.path, map_location="cpu", weights_only=True)
        objects = self._objects(engine)
        for name, item in objects.items():
            if name not in checkpoint:
                raise _other_configuration(self.path, f"the entry '{name}'", ", ".join(sorted(checkpoint)))
            try:
                _load_state_dict(item, checkpoint[name])
            except (RuntimeError, ValueError, KeyError) as e:
                reason = str(e).strip().splitlines()[-1].strip()
                raise _other_configuration(self.path, f"an entry '{name}' that fits", reason) from e
        if checkpoint["epoch"] >= engine.state.max_epochs:
            raise UserError(
                "run is already complete",
                self.path,
                f"fewer than {engine.state.max_epochs} epochs",
                checkpoint["epoch"],
                "raise --max_epochs",
            )
        engine.state.epoch = checkpoint["epoch"]
        engine.state.iteration = checkpoint["epoch"] * engine.state.epoch_length
        engine.logger.info(f"Resumed from {self.path} after epoch {checkpoint['epoch']}")

    def _objects(self, engine: Engine) -> dict[str, Any]:
        objects = dict(self.state)
        scaler = getattr(engine, "scaler", None)
        if scaler is not None:
            objects["scaler"] = scaler
        if self.best is not None:
            objects["best"] = self.best
        return objects


def _other_configuration(path: str, expected: str, found: str) -> UserError:
    step = "resume with the config files and options the run was started with"
    return UserError("checkpoint of another configuration", path, expected, found, step)


def _state_dict(item: Any) -> dict:
    return unwrap(item).state_dict() if isinstance(item, nn.Module) else item.state_dict()


def _load_state_dict(item: Any, state: dict) -> None:
    (unwrap(item) if isinstance(item, nn.Module) else item).load_state_dict(state)
