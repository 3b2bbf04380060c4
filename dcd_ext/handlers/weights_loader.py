"""Load trained weights strictly, with an error that says what to do."""

from ignite.engine import Engine, Events
from torch import nn

from dcd_ext.tensors import unwrap
from dcd_ext.weights import load_weights


class WeightsLoader:
    """Loads a bundle's ``model.pt`` when the engine starts.

    Args:
        network: receives the weights.
        path: the checkpoint, a plain state dict.

    Raises:
        UserError: when the engine starts, if the file is missing or does not fit.
    """

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Register with an engine; the weights are loaded when it starts."""
        if not engine.has_event_handler(self, Events.STARTED):
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights into the unwrapped network."""
        load_weights(unwrap(self.network), self.path, "train the bundle first, or pass --ckpt_path <file>")
        engine.logger.info(f"Loaded {self.path}")
