"""Score the teacher on a few validation cases before the first epoch, and compare with the score it is known for."""

import logging
import re
from collections.abc import Iterator, Mapping, Sized
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader, Subset

from dcd_ext.errors import UserError
from dcd_ext.io import sha256
from dcd_ext.readers import parse_json
from dcd_ext.weights import origin_of

logger = logging.getLogger(__name__)
# words of a metric's name that do not say what is measured
_IDLE = {"val", "validation", "test", "mean", "average", "avg", "score", "foreground", "metric"}
# two standard errors: a few cases that differ widely are weak evidence
_ERRORS = 2


class TeacherCheck:
    """Refuses, when it starts, a run whose teacher segments worse, or better, than is recorded of it.

    A teacher that is fed with other channels, labels or intensities than it was trained on gives no error and
    nothing worth learning. The score is the validation's own, with its transforms, inferer and metric. It is compared
    with the first of: what the weights themselves say, ``metrics.json`` beside them, ``metadata.json`` of their bundle.
    Without a comparable record the score is logged. A resumed run is not checked again.

    Args:
        evaluator: that of the validation, but with the teacher as its network and a metric of its own.
        ckpt_path: the teacher's weights.
        cases: how many of the evaluator's cases are segmented, evenly spread; 0 leaves the check out.
        tolerance: by how much the score may differ; more, if the cases themselves differ widely.
    """

    def __init__(self, evaluator: SupervisedEvaluator, ckpt_path: str, cases: int = 4, tolerance: float = 0.15) -> None:
        self.evaluator, self.ckpt_path, self.cases, self.tolerance = evaluator, ckpt_path, cases, tolerance

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, after the handler that resumes it."""
        if not engine.has_event_handler(self, Events.STARTED):
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Check, unless it is switched off, the run is resumed or there is nothing to segment."""
        loader: Any = self.evaluator.data_loader
        sized = isinstance(getattr(loader, "dataset", None), Sized)
        if self.cases and not engine.state.iteration and sized and len(loader.dataset):
            self.compare(*self._score(loader))

    def compare(self, name: str, score: float, error: float) -> None:
        records = recorded_scores(Path(self.ckpt_path))
        known, where = next(((k, file) for scores, file in records for k in _of_metric(scores, name)), (None, None))
        shown = f"{name} {score:.3f} in {self.cases} validation cases"
        if known is None or not score >= 0:
            logger.info("The teacher has %s; no score to compare with is recorded of its weights", shown)
        elif abs(score - known) <= max(self.tolerance, _ERRORS * error):
            logger.info("The teacher has %s, %.3f is recorded in %s", shown, known, where)
        else:
            causes = "other preprocessing, another order of channels or labels, other weights, another fold"
            step = f"likely causes: {causes}; --teacher_cases 0 trains all the same"
            what, expected = "the teacher does not score as recorded", f"{known:.3f} ({where})"
            raise UserError(what, self.ckpt_path, expected, shown, step)

    def _score(self, loader: DataLoader) -> tuple[str, float, float]:
        """Name of the metric, the teacher's mean and its standard error."""
        evaluator, data = self.evaluator, loader.dataset
        number = len(data)  # type: ignore[arg-type]
        self.cases = min(self.cases, number)
        few = Subset(data, [i * number // self.cases for i in range(self.cases)])
        evaluator.data_loader = DataLoader(few, collate_fn=loader.collate_fn)
        evaluator.state.epoch_length = self.cases
        # "best metric" would be taken for the student's
        evaluator.logger = logging.getLogger(f"{__name__}.evaluator")
        evaluator.logger.setLevel(logging.WARNING)
        inferer = evaluator.inferer
        evaluator.inferer = deepcopy(inferer)  # what a GPU records of the teacher is freed with the copy
        # a run that is checked trains like one that is not
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            evaluator.run()
        evaluator.inferer = inferer
        name = evaluator.state.key_metric_name
        single = evaluator.state.metric_details.get(name, torch.empty(0, 1)).flatten(1).nanmean(1)
        spread = float(single.std()) if len(single) > 1 else 0.0
        return name, float(evaluator.state.metrics[name]), spread / self.cases**0.5


def recorded_scores(weights: Path, bundle: Path | None = None) -> Iterator[tuple[Any, str]]:
    """Scores, by name, that are recorded of weights, with the name of the file that says so.

    The bundle is by default the one whose ``models`` contains the weights.
    """
    origin, bundle = origin_of(weights), bundle or weights.parent.parent
    if isinstance(origin, dict) and origin.get("scores"):
        yield origin["scores"], weights.name
    for file in (weights.parent / "metrics.json", bundle / "configs" / "metadata.json"):
        try:
            content = parse_json(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if not isinstance(content, dict):
            continue
        for scores in filter(None, (content.get(key) for key in ("summary", "eval_metrics", "performance"))):
            digest = content.get("weights_sha256") or (isinstance(scores, dict) and scores.get("weights_sha256"))
            if not digest or digest == sha256(weights):  # weights that took the place of others have another
                yield scores, file.name


def _of_metric(scores: Any, metric: str) -> Iterator[float]:
    """What scores say about a metric, as fractions."""
    for name, value in _flat(scores):
        fraction = value / 100 if 1 < value <= 100 else value
        if _words(name) == _words(metric) and 0 <= fraction <= 1:
            yield fraction


def _flat(scores: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Numbers in nested dictionaries, with the names on the way joined."""
    if isinstance(scores, Mapping):
        for key, value in scores.items():
            yield from _flat(value, f"{name} {key}")
    elif isinstance(scores, (int, float)) and not isinstance(scores, bool):
        yield name, float(scores)


def _words(name: str) -> set[str]:
    """What a metric's name says: ``{"dice"}`` for ``val_mean_dice``, ``meanDice`` and ``dice mean``."""
    return set(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())) - _IDLE
