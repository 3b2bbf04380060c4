"""Track a run on an MLflow server that may go away."""

import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from monai.handlers import MLFlowHandler

from dcd_ext.errors import UserError

logger = logging.getLogger(__name__)
_ANSWERS_WITHIN = 8.0  # seconds, at the start of a run; a local file is waited for
_PAUSE = 30.0  # seconds without a further attempt after one that failed; doubled each time
# MLflow's own defaults are 7 attempts of up to 120 s each, with growing pauses between them
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


def require_server(tracking_uri: str) -> None:
    """Refuse an MLflow store that does not answer within seconds; ``MLFLOW_TRACKING_URI`` comes before the config's."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri
    errors: list[Exception] = []

    def ask() -> None:
        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:  # of MLflow, requests or a database's driver
            errors.append(error)

    # a thread, because the time-outs of HTTP are those of single packets, and a database's are minutes
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(None if urlsplit(uri).scheme in ("", "file", "sqlite") else _ANSWERS_WITHIN)
    if asking.is_alive() or errors:
        found = _last_line(errors[0]) if errors else f"no answer within {_ANSWERS_WITHIN:g} s"
        step = "start the server, correct --tracking_uri, or leave out --tracking"
        raise UserError("MLflow does not answer", uri, "an MLflow server", found, step)


class Tracking(MLFlowHandler):
    """MONAI's ``MLFlowHandler``, which does not end a training when its server is gone.

    That is said once; metrics are kept and sent when the server is back. ``training.json`` has those of every epoch,
    whatever happens to the server. Takes the arguments of ``MLFlowHandler``.
    """

    _told = False  # of all trackers of a process: the trainer and the validator have one each

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unsent: deque[tuple[dict[str, Any], int | None]] = deque()
        self._pause, self._again_at = _PAUSE, 0.0

    def start(self, engine: Any) -> None:
        """Find or begin the run on the server."""
        self._start = functools.partial(super().start, engine)
        self._try(self._start)

    def complete(self) -> None:
        self._try(super().complete)

    def close(self) -> None:
        """Send what is left and finish the run on the server."""
        self._again_at = 0.0
        self._send()
        self._try(super().close)
        if self._unsent:
            logger.warning("MLflow lacks %d entries of this run; training.json is complete", len(self._unsent))

    def _log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """All metrics of the parent class pass here."""
        self._unsent.append((dict(metrics), step))
        self._send()

    def _send(self) -> None:
        send = super()._log_metrics
        if self.cur_run or (self._try(self._start) and self.cur_run):
            while self._unsent and self._try(functools.partial(send, *self._unsent[0])):
                self._unsent.popleft()

    def _try(self, action: Callable[[], Any]) -> bool:
        """Do something that needs the server; False if that failed, or failed a moment ago."""
        if time.monotonic() < self._again_at:
            return False
        try:
            action()
        except (MlflowException, OSError) as error:
            # a server that hangs costs seconds at each attempt
            self._again_at, self._pause = time.monotonic() + self._pause, min(2 * self._pause, 20 * _PAUSE)
            if not Tracking._told:
                logger.warning("MLflow does not answer, the training goes on without it: %s", _last_line(error))
            Tracking._told = True
            return False
        self._pause = _PAUSE
        return True


def _last_line(error: Exception) -> str:
    """The reason, which comes last, but for MLflow's advice on time-outs."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    _, caused, reason = line.rpartition("(Caused by ")
    return reason[:160] if caused else line[-120:]
