"""Load trained weights strictly, with an error that says what to do."""

from ignite.engine import Engine, Events
from torch import nn

from dcd_ext.handlers.run import Run
from dcd_ext.tensors import unwrap
from dcd_ext.weights import load_weights, origin_of


class WeightsLoader:
    """Loads a bundle's ``model.pt`` when the engine starts; what is missing or does not fit is refused.

    Args:
        network: receives the weights.
        path: the checkpoint, a plain state dict.
        run: whose held-out fold is scored; weights that were trained on its cases are refused, too. None where the
            cases had no part in training.
    """

    def __init__(self, network: nn.Module, path: str, run: Run | None = None) -> None:
        self.network = network
        self.path = path
        self.run = run

    def attach(self, engine: Engine) -> None:
        """Register with an engine; the weights are loaded when it starts."""
        if not engine.has_event_handler(self, Events.STARTED):
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(unwrap(self.network), self.path, "train the bundle first, or pass --ckpt_path <file>")
        if self.run is not None:
            self.run.require_held_out(origin_of(self.path), self.path)
        engine.logger.info(f"Loaded {self.path}")
