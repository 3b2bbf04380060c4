"""Make the randomness of each epoch a function of the seed and the epoch alone."""

from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd


class EpochSeed:
    """Reseeds sampling and augmentation when an epoch starts.

    A run that is resumed after epoch k then draws exactly what an uninterrupted run draws, and two runs with different
    losses see the same patches in the same order. This holds for any number of workers: they take their seeds from
    torch's generator, and without workers the data set's own transforms are reseeded here.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.Trainer`` whose data loader is iterated anew in each epoch."""
        if not engine.has_event_handler(self, Events.EPOCH_STARTED):
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Reseed for ``engine.state.epoch``; processes of a distributed run draw different patches."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        # a large odd stride keeps (seed, epoch, rank) triples apart; 2**32 is what NumPy accepts
        seed = (self.seed + 1_000_003 * engine.state.epoch + 7_919 * rank) % 2**32
        torch.manual_seed(seed)
        loader: Any = engine.state.dataloader
        set_rnd(loader.dataset, seed)
