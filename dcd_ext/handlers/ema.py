"""ignite's EMA handler with a state that can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import CallableEventWithFilter, Engine, Events, EventsList
from ignite.handlers import EMAHandler

__all__ = ["ResumableEMAHandler"]


class ResumableEMAHandler(EMAHandler):
    """Exponential moving average of a network that a resumed run continues exactly.

    ignite's handler keeps no state of its own: its momentum warm-up would start again with every resume. It also copies
    the network when it is made, before a checkpoint is loaded, so that a short fine-tuning would average trained with
    random weights; this one copies it when the run starts. Attach it after the handlers that load checkpoints.
    Arguments and attributes are those of ``ignite.handlers.EMAHandler``; ``ema_model`` is the averaged network.
    """

    _restored = False

    def attach(
        self,
        engine: Engine,
        name: str = "ema_momentum",
        warn_if_exists: bool = True,
        event: str | Events | CallableEventWithFilter | EventsList = Events.ITERATION_COMPLETED,
    ) -> None:
        """Register with a trainer; arguments as in ignite."""
        engine.add_event_handler(Events.STARTED, self._take_over_weights)
        super().attach(engine, name, warn_if_exists, event)

    def _take_over_weights(self) -> None:
        """Average from the weights the run starts with, unless the run goes on with an average of its own."""
        if not self._restored:
            self.ema_model.load_state_dict(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates the warm-up has seen."""
        scheduler = getattr(self, "momentum_scheduler", None)
        return {"model": self.ema_model.state_dict(), "updates": scheduler.event_index if scheduler else 0}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore both; the handler has to be attached before."""
        self._restored = True
        self.ema_model.load_state_dict(state_dict["model"])
        scheduler = getattr(self, "momentum_scheduler", None)
        if scheduler is not None:
            scheduler.event_index = state_dict["updates"]
