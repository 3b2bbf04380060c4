"""Handlers for MONAI engines: ``__init__`` keeps arguments, ``attach`` chooses events, ``__call__`` does the work."""

from dcd_ext.handlers.checkpoints import Checkpoints
from dcd_ext.handlers.epoch_seed import EpochSeed
from dcd_ext.handlers.metrics_json import MetricsJson
from dcd_ext.handlers.resumable_run import ResumableRun
from dcd_ext.handlers.training_record import TrainingRecord
from dcd_ext.handlers.weights_loader import WeightsLoader

__all__ = [
    "Checkpoints",
    "EpochSeed",
    "MetricsJson",
    "ResumableRun",
    "TrainingRecord",
    "WeightsLoader",
]
