"""Best weights for users and the last state for resuming, both written atomically."""

import os
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import SupervisedTrainer

from dcd_ext.distributed import is_main_process
from dcd_ext.errors import UserError
from dcd_ext.handlers.same_form import require_same_form
from dcd_ext.io import save_checkpoint
from dcd_ext.readers import check_content
from dcd_ext.tensors import unwrap
from dcd_ext.weights import read_checkpoint

_ANOTHER = "start a new run in another --output_dir"


class Checkpoints:
    """Writes the best weights and, after every epoch, all that the run needs to go on; restores it on request.

    ``<ckpt_dir>/model.pt`` is the plain state dict of the validated network (the EMA copy if there is one), written
    when the validator's key metric improves. ``<output_dir>/checkpoint_last.pt`` holds the state dicts of ``state``,
    the gradient scaler, the best metric and the epoch. Only the first process of a distributed run writes.

    MONAI's ``CheckpointSaver`` writes in place, so that a killed run can leave half a file, and forgets its best value.
    ignite's ``EMAHandler`` has no ``state_dict`` and copies the network before a checkpoint is loaded; its average
    and the position of its momentum warm-up are saved and restored here, and a run that is not resumed averages from
    the weights it starts with.

    Attach it after the ``ValidationHandler`` and after handlers that load weights.

    Args:
        output_dir: folder of ``checkpoint_last.pt``.
        ckpt_dir: folder of ``model.pt``.
        state: what to save by name: modules, optimizers, schedulers, ``EMAHandler``s; None entries are left out.
        validator: the evaluator, whose best metric decides and whose network is written to ``model.pt``.
        resume: continue from ``checkpoint_last.pt`` when the run starts.

    Raises:
        UserError: when a run starts that has nothing to resume from, or whose checkpoint does not fit it.
    """

    def __init__(
        self, output_dir: str, ckpt_dir: str, state: Mapping[str, Any], validator: Any = None, resume: bool = False
    ) -> None:
        self.path = os.path.join(output_dir, "checkpoint_last.pt")
        self.best_path = os.path.join(ckpt_dir, "model.pt")
        self.state = {name: item for name, item in state.items() if item is not None}
        self.validator = validator
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.SupervisedTrainer``."""
        if engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def started(self, engine: SupervisedTrainer) -> None:
        """Restore the run, or let its averages begin with the weights it has now."""
        if self.resume:
            self._load(engine)
            return
        for item in self.state.values():
            if isinstance(item, EMAHandler):
                item.ema_model.load_state_dict(item.model.state_dict())

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Write the checkpoint and, if this epoch's validation was the best so far, ``model.pt``."""
        if not is_main_process():
            return
        best = None if self.validator is None else self.validator.state
        if best is not None and best.best_metric_epoch == engine.state.epoch:
            save_checkpoint(unwrap(self.validator.network).state_dict(), self.best_path)
        content = {name: _state_dict(item) for name, item in self._objects(engine).items()}
        content |= {"epoch": engine.state.epoch, "max_epochs": engine.state.max_epochs}
        if best is not None:
            content["best"] = {"metric": float(best.best_metric), "epoch": best.best_metric_epoch}
        save_checkpoint(content, self.path)

    def _load(self, engine: SupervisedTrainer) -> None:
        """Restore the run; the engine goes on with the epoch after the saved one."""
        if not os.path.isfile(self.path):
            raise UserError("nothing to resume", self.path, "a checkpoint", "no such file", "run without --resume")
        checkpoint = read_checkpoint(self.path, _ANOTHER)
        # a schedule of another length would go on with a learning rate of 0 where the shorter one ended
        expected, found = engine.state.max_epochs, checkpoint.get("max_epochs")
        if found != expected:
            raise self._does_not_fit(f"max_epochs {expected}", found)
        check_content(checkpoint, "checkpoint", self.path, "checkpoint", _ANOTHER)
        for name in [*self._objects(engine), *(["best"] if self.validator is not None else [])]:
            if name not in checkpoint:
                raise self._does_not_fit(f"the entry '{name}'", ", ".join(sorted(map(str, checkpoint))))
        for name, item in self._objects(engine).items():
            try:
                require_same_form(_state_dict(item), checkpoint[name], name)
                _load_state_dict(item, checkpoint[name])
            except Exception as e:  # what torch's objects raise for a foreign state cannot be foreseen
                found = (str(e).strip() or type(e).__name__).splitlines()[-1].strip()
                raise self._does_not_fit(f"an entry '{name}' that fits", found) from e
        epoch = checkpoint["epoch"]
        if epoch >= expected:
            raise UserError("run is already complete", self.path, f"fewer than {expected} epochs", epoch, _ANOTHER)
        if self.validator is not None:
            self.validator.state.best_metric = checkpoint["best"]["metric"]
            self.validator.state.best_metric_epoch = checkpoint["best"]["epoch"]
        engine.state.epoch = epoch
        engine.state.iteration = epoch * engine.state.epoch_length
        engine.logger.info(f"Resumed from {self.path} after epoch {epoch}")

    def _objects(self, engine: SupervisedTrainer) -> dict[str, Any]:
        scaler = getattr(engine, "scaler", None)
        return self.state if scaler is None else {**self.state, "scaler": scaler}

    def _does_not_fit(self, expected: str, found: object) -> UserError:
        step = "resume with the config files and options the run was started with"
        return UserError("checkpoint of another configuration", self.path, expected, found, step)


def _state_dict(item: Any) -> dict[str, Any]:
    if isinstance(item, EMAHandler):
        scheduler = getattr(item, "momentum_scheduler", None)
        return {"model": item.ema_model.state_dict(), "updates": scheduler.event_index if scheduler else 0}
    return unwrap(item).state_dict()


def _load_state_dict(item: Any, state: dict[str, Any]) -> None:
    if isinstance(item, EMAHandler):
        item.ema_model.load_state_dict(state["model"])
        scheduler = getattr(item, "momentum_scheduler", None)
        if scheduler is not None:
            scheduler.event_index = state["updates"]
    else:
        unwrap(item).load_state_dict(state)
