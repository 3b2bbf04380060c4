"""tqdm progress bar with the running loss."""

from __future__ import annotations

import sys
from typing import Any

from ignite.engine import Engine
from ignite.handlers import ProgressBar
from tqdm import tqdm

__all__ = ["TqdmProgress"]


class _Bar(tqdm):
    """A bar that is redrawn at its interval only; ignite redraws at every step."""

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = False, **kwargs: Any) -> None:
        super().set_postfix(ordered_dict, refresh=False, **kwargs)

    def set_description(self, desc: str | None = None, refresh: bool = False) -> None:
        super().set_description(desc, refresh=False)


class TqdmProgress(ProgressBar):
    """ignite's progress bar, attached as MONAI attaches handlers and quiet in log files.

    Args:
        desc: what is running, e.g. ``train``.
        show_loss: show ``engine.state.output``'s loss.
    """

    def __init__(self, desc: str, show_loss: bool = True) -> None:
        # a bar that is redrawn every 0.1 s fills a log file; on a terminal nothing changes
        interval = 0.1 if sys.stderr.isatty() else 30.0
        super().__init__(persist=False, desc=desc, bar_format=None, mininterval=interval)
        self.pbar_cls = _Bar
        self.show_loss = show_loss

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Register with an engine.

        Args:
            engine: trainer or evaluator.
        """
        transform = _loss if self.show_loss else None
        super().attach(engine, output_transform=transform)


def _loss(output: Any) -> dict[str, float]:
    first = output[0] if isinstance(output, list) else output
    return {"loss": float(first["loss"])}
