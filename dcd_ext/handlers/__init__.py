"""ignite handlers for MONAI engines: ``__init__`` keeps arguments, ``attach`` chooses events, ``__call__`` does it."""

from dcd_ext.distill.handler import DistillationHandler
from dcd_ext.handlers.checkpoints import BestModelSaver, ResumeCheckpoint
from dcd_ext.handlers.ema import ResumableEMAHandler
from dcd_ext.handlers.epoch_means import EpochMeans
from dcd_ext.handlers.epoch_seed import EpochSeed
from dcd_ext.handlers.gradient_clipping import GradientClipping
from dcd_ext.handlers.metrics_json import MetricsJson
from dcd_ext.handlers.progress import TqdmProgress
from dcd_ext.handlers.training_record import TrainingRecord
from dcd_ext.handlers.weights_loader import WeightsLoader

__all__ = [
    "BestModelSaver",
    "DistillationHandler",
    "EpochMeans",
    "EpochSeed",
    "GradientClipping",
    "MetricsJson",
    "ResumableEMAHandler",
    "ResumeCheckpoint",
    "TqdmProgress",
    "TrainingRecord",
    "WeightsLoader",
]
