"""Best weights for users and the last state for resuming, both written atomically."""

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import SupervisedTrainer

from dcd_ext.distributed import gather_objects, on_main_process
from dcd_ext.errors import UserError
from dcd_ext.handlers.run import BEST, LAST, Run
from dcd_ext.readers import check_content
from dcd_ext.tensors import unwrap
from dcd_ext.weights import describe, read_checkpoint, save_checkpoint, save_weights

_ANOTHER = "start a new run in another --output_dir"


class Checkpoints:
    """Writes the best weights and, after every epoch, all that the run needs to go on; restores it on request.

    ``<ckpt_dir>/model.pt`` is the plain state dict of the validated network (the EMA copy if there is one), written
    when the validator's key metric improves. ``<output_dir>/checkpoint_last.pt`` holds the state dicts of ``state``,
    the gradient scaler, the best metric, the epoch and the run's identity. Only the first process of a distributed run
    writes. :meth:`save` does so within an epoch, too, which is then continued with the step that comes next.

    MONAI's ``CheckpointSaver`` writes in place, so that a killed run can leave half a file, and forgets its best value.
    ignite's ``EMAHandler`` has no ``state_dict`` and copies the network before a checkpoint is loaded; its average
    and the position of its momentum warm-up are saved and restored here, and a run that is not resumed averages from
    the weights it starts with.

    Attach it after the ``ValidationHandler`` and after handlers that load weights.

    Args:
        state: what to save by name: modules, optimizers, schedulers, ``EMAHandler``s; None entries are left out.
        validator: the evaluator, whose best metric decides and whose network is written to ``model.pt``.
        resume: continue from ``checkpoint_last.pt`` when the run starts; ``"auto"``: if there is one, and end at
            once if that run is complete.
        run: its identity is written into both files, and compared when it is resumed.
        record: has a ``state_dict`` of what an epoch has gathered so far.

    Raises:
        UserError: when a run starts that has nothing to resume from, or whose checkpoint does not fit it; when a file
            cannot be written, or weights are not finite. In all processes.
    """

    def __init__(
        self,
        output_dir: str,
        ckpt_dir: str,
        state: Mapping[str, Any],
        validator: Any = None,
        resume: bool | str = False,
        run: Run | None = None,
        record: Any = None,
    ) -> None:
        self.path = os.path.join(output_dir, LAST)
        self.best_path = os.path.join(ckpt_dir, BEST)
        self.run, self.record = run, record
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
        resumed = bool(self.resume) and (self.resume != "auto" or os.path.isfile(self.path))
        if resumed:
            self._load(engine)
        else:
            for item in self.state.values():
                if isinstance(item, EMAHandler):
                    item.ema_model.load_state_dict(item.model.state_dict())
        # folders of several machines may be no shared ones: their processes would go on from different weights
        found = gather_objects(f"step {engine.state.iteration}" if resumed else "no checkpoint")
        if len(set(found)) > 1:
            step = "choose an --output_dir on a file system that all machines share"
            expected, texts = "the same one for all processes", ", ".join(dict.fromkeys(found))
            raise UserError("processes with different checkpoints", self.path, expected, texts, step)

    def __call__(self, engine: SupervisedTrainer) -> None:
        self.save(engine, 0)

    def save(self, engine: SupervisedTrainer, steps: int) -> None:
        """To be called in all processes; ``steps`` are those of an epoch that is interrupted, 0 if it was completed."""
        random = gather_objects(_random_states(_device(engine))) if steps else []
        on_main_process(lambda: self._save(engine, steps, random))

    def _save(self, engine: SupervisedTrainer, steps: int, random: list[dict[str, torch.Tensor]]) -> None:
        epoch = engine.state.epoch - (1 if steps else 0)
        content = {name: _state_dict(item) for name, item in self._objects(engine).items()}
        content |= {"epoch": epoch, "max_epochs": engine.state.max_epochs}
        if self.run is not None:
            content["run"] = {**self.run.identity, "config": self.run.config}
        if steps:
            record = {} if self.record is None else self.record.state_dict()
            content["interrupted"] = {"steps": steps, "random": random, "record": record}
        if self.validator is not None:
            best = self.validator.state
            # a run whose validation has no score keeps the weights it ends with
            unscored = best.best_metric_epoch < 1 and epoch == engine.state.max_epochs
            if not steps and (best.best_metric_epoch == epoch or unscored):
                origin = {**(self.run.identity if self.run else {}), "epoch": epoch}
                if not unscored and (name := getattr(best, "key_metric_name", None)):
                    origin["scores"] = {name: float(best.best_metric)}  # what a student compares its teacher with
                save_weights(unwrap(self.validator.network).state_dict(), self.best_path, origin)
            content["best"] = {"metric": float(best.best_metric), "epoch": best.best_metric_epoch}
        save_checkpoint(content, self.path)

    def _load(self, engine: SupervisedTrainer) -> None:
        if not os.path.isfile(self.path):
            raise UserError("nothing to resume", self.path, "a checkpoint", "no such file", "run without --resume")
        checkpoint = read_checkpoint(self.path, _ANOTHER)
        # a schedule of another length would go on with a learning rate of 0 where the shorter one ended
        expected, found = engine.state.max_epochs, checkpoint.get("max_epochs")
        if not isinstance(found, int) or found != expected:  # a sparse tensor cannot be compared
            raise self._does_not_fit(f"max_epochs {expected}", found)
        check_content(checkpoint, "checkpoint", self.path, "checkpoint", _ANOTHER)
        if self.run is not None:
            self.run.require_same(checkpoint.get("run"), self.path)
        for name in [*self._objects(engine), *(["best"] if self.validator is not None else [])]:
            if name not in checkpoint:
                raise self._does_not_fit(f"the entry '{name}'", ", ".join(sorted(map(str, checkpoint))))
        for name, item in self._objects(engine).items():
            try:
                _require_same_form(_state_dict(item), checkpoint[name], name)
                _load_state_dict(item, checkpoint[name])
            except Exception as e:  # what torch's objects raise for a foreign state cannot be foreseen
                found = (str(e).strip() or type(e).__name__).splitlines()[-1].strip()
                raise self._does_not_fit(f"an entry '{name}' that fits", found) from e
        epoch = checkpoint["epoch"]
        if epoch >= expected and self.resume == "auto":
            engine.logger.warning(f"{self.path} is complete: nothing is left to train")
            engine.terminate()
        elif epoch >= expected:
            raise UserError("run is already complete", self.path, f"fewer than {expected} epochs", epoch, _ANOTHER)
        if self.validator is not None:
            self.validator.state.best_metric = checkpoint["best"]["metric"]
            self.validator.state.best_metric_epoch = checkpoint["best"]["epoch"]
        engine.state.epoch = epoch
        engine.state.iteration = epoch * engine.state.epoch_length
        if interrupted := checkpoint.get("interrupted"):
            self._continue_epoch(engine, **interrupted)
        engine.logger.info(f"Resumed from {self.path} after epoch {epoch}")

    def _continue_epoch(self, engine: Any, steps: int, random: list[dict[str, torch.Tensor]], record: Any) -> None:
        """Let the next epoch begin after some steps, with the batches and random numbers that follow on them."""
        engine.state.iteration += steps
        if self.record is not None and record:
            self.record.load_state_dict(record)
        rank = dist.get_rank() if dist.is_initialized() else 0
        engine.state.dataloader = _Continued(engine.state.dataloader, steps, random[rank], _device(engine))

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


def _require_same_form(own: Any, saved: Any, place: str) -> None:
    """Raise ``ValueError`` for a saved state that is built otherwise than the object's own, which torch would load.

    An optimizer's own state is empty before its first step; then the saved one is not looked into.
    """
    if isinstance(own, dict) and own:
        if not isinstance(saved, dict) or saved.keys() != own.keys():
            raise ValueError(f"{place}: other entries")
        for key, value in own.items():
            _require_same_form(value, saved[key], f"{place}.{key}")
    elif isinstance(own, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(own):
            raise ValueError(f"{place}: another list")
        for number, value in enumerate(own):
            _require_same_form(value, saved[number], f"{place}[{number}]")
    elif isinstance(own, torch.Tensor):
        if describe(saved) != describe(own):
            raise ValueError(f"{place}: {describe(saved)} instead of {describe(own)}")
    elif isinstance(own, int | float) and not isinstance(own, bool):
        if not isinstance(saved, int | float) or not abs(saved) < float("inf"):
            raise ValueError(f"{place}: no number")
    elif own is not None and not isinstance(saved, type(own)):
        raise ValueError(f"{place}: a value of type {type(saved).__name__}")


def _device(engine: Any) -> torch.device:
    """The trainer's, which need not be torch's current one."""
    return torch.device(getattr(engine.state, "device", "cpu"))


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Those of a step, such as dropout's; data loading has its own."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


class _Continued:
    """A data loader whose first pass leaves out the batches that were trained on; all else is the loader's."""

    def __init__(self, loader: Any, steps: int, random: dict[str, torch.Tensor], device: torch.device) -> None:
        self.loader, self.steps, self.random, self.device = loader, steps, random, device

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        batches, steps, self.steps = iter(self.loader), self.steps, 0
        if steps:
            for _ in itertools.islice(batches, steps):
                pass
            torch.set_rng_state(self.random["cpu"])
            if "cuda" in self.random and self.device.type == "cuda":
                torch.cuda.set_rng_state(self.random["cuda"], self.device)
        return batches
