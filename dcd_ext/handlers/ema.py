"""ignite's EMA handler with a state that can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.handlers import EMAHandler

__all__ = ["ResumableEMAHandler"]


class ResumableEMAHandler(EMAHandler):
    """Exponential moving average of a network that a resumed run continues exactly.

    ignite's handler keeps no state of its own: its momentum warm-up would start again with every resume.
    Arguments and attributes are those of ``ignite.handlers.EMAHandler``; ``ema_model`` is the averaged network.
    """

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the number of updates the warm-up has seen."""
        scheduler = getattr(self, "momentum_scheduler", None)
        return {"model": self.ema_model.state_dict(), "updates": scheduler.event_index if scheduler else 0}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore both; the handler has to be attached before."""
        self.ema_model.load_state_dict(state_dict["model"])
        scheduler = getattr(self, "momentum_scheduler", None)
        if scheduler is not None:
            scheduler.event_index = state_dict["updates"]
