"""Keep what happened in training, epoch by epoch, in one file."""

import os
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from dcd_ext.distributed import gather_objects, is_main_process
from dcd_ext.io import write_json
from dcd_ext.readers import read_training
from dcd_ext.versions import environment


class TrainingRecord:
    """Writes ``training.json``: versions, device, and each epoch's seconds, CPU seconds, learning rate and metrics.

    The mean over the epoch, and over the processes of a distributed run, of every scalar in ``engine.state.output``
    is put into ``engine.state.metrics`` with the epoch's last step, where ``StatsHandler`` and ``MLFlowHandler`` find
    it: ``loss`` of every run and, when distilling, ``seg_loss``, ``kd_loss``, ``kd_weight`` and the loss's parts.
    (ignite's ``Average`` needs one metric per name, and the names depend on the loss.) Sums stay on their device
    until then, so that no step waits for a GPU.

    Attach it after the ``ValidationHandler``, so that an epoch's entry has its validation metrics and time. A resumed
    run goes on with the file it finds. Only the first process of a distributed run writes.

    Args:
        validator: the evaluator whose metrics are recorded beside the trainer's.
    """

    def __init__(self, path: str, validator: Engine | None = None) -> None:
        self.path = path
        self.validator = validator
        self._epochs: list[dict[str, Any]] = []
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._clock, self._cpu = 0.0, 0.0
        self._learning_rate = 0.0
        self._begun: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.SupervisedTrainer``."""
        if engine.has_event_handler(self, Events.EPOCH_COMPLETED):
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        # before MODEL_COMPLETED, where the trainer may split the output into one dictionary per case
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.step_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def epoch_started(self, engine: SupervisedTrainer) -> None:
        """Start the clock; in the first epoch of a resumed run, take over what was recorded before it."""
        begun, self._begun = self._begun, {}
        self._sums, self._steps = dict(begun.get("sums", {})), begun.get("steps", 0)
        self._clock = time.perf_counter() - begun.get("seconds", 0.0)
        self._cpu = time.process_time() - begun.get("cpu_seconds", 0.0)
        self._learning_rate = engine.optimizer.param_groups[0]["lr"]  # a schedule may step before the epoch's record
        if engine.state.epoch > 1 and not self._epochs and os.path.isfile(self.path):
            record = read_training(self.path)
            self._epochs = [e for e in record["epochs"] if e["epoch"] < engine.state.epoch]

    def state_dict(self) -> dict[str, Any]:
        """What an epoch that is interrupted now has gathered."""
        sums = {str(name): total for name, total in self._sums.items()}  # MONAI's names are of a class of its own
        seconds, cpu_seconds = time.perf_counter() - self._clock, time.process_time() - self._cpu
        return {"sums": sums, "steps": self._steps, "seconds": seconds, "cpu_seconds": cpu_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with an interrupted epoch when the next one starts."""
        self._begun = state

    def step_completed(self, engine: Engine) -> None:
        """Add this step's scalars; publish the means with the epoch's last step."""
        self._steps += 1
        output: Any = engine.state.output
        for name, value in output.items():
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                value = value.detach().reshape(()).double()
                self._sums[name] = self._sums[name] + value if name in self._sums else value
        if self._steps == engine.state.epoch_length:
            shares = gather_objects({name: float(total) / self._steps for name, total in self._sums.items()})
            engine.state.metrics.update({name: sum(s[name] for s in shares) / len(shares) for name in shares[0]})

    def __call__(self, engine: SupervisedTrainer) -> None:
        entry: dict[str, Any] = {
            "epoch": engine.state.epoch,
            "seconds": time.perf_counter() - self._clock,
            "cpu_seconds": time.process_time() - self._cpu,
            "learning_rate": self._learning_rate,
            **_finite(engine.state.metrics),
        }
        # the validator keeps its last metrics; they belong to this epoch only if it has just run
        if self.validator is not None and self.validator.state.epoch == engine.state.epoch:
            entry.update(_finite(self.validator.state.metrics))
        self._epochs.append(entry)
        if is_main_process():
            record = {
                "environment": environment(getattr(engine.state, "device", None)),
                "seconds": sum(e["seconds"] for e in self._epochs),
                # of this process, with all its threads
                "cpu_seconds": sum(e.get("cpu_seconds", 0.0) for e in self._epochs),
                "epochs": self._epochs,
            }
            write_json(record, self.path)


def _finite(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Plain numbers; JSON has no NaN."""
    numbers = {name: float(value) for name, value in metrics.items()}
    return {name: value if abs(value) < float("inf") else None for name, value in numbers.items()}
