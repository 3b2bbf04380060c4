"""End a training that diverged, before the weights are touched."""

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from dcd_ext.distributed import any_process, gather_objects
from dcd_ext.errors import UserError


class StopOnNonFinite:
    """Ends the run when the loss, or the norm of the gradient, is NaN or infinite; the optimizer does not step.

    A ``UserError`` in all processes names the cases of the batch.
    ignite's ``TerminateOnNan`` looks after the step, when the weights are spoiled, and ends the run as if it had
    succeeded. Under a gradient scaler, which skips steps with such gradients, only the loss counts.

    Args:
        checkpoint: the file of the last finite state, for the message.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def attach(self, engine: Engine) -> None:
        """Register with a ``monai.engines.SupervisedTrainer``."""
        if not engine.has_event_handler(self, IterationEvents.BACKWARD_COMPLETED):
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        output: Any = engine.state.output
        loss, found = output["loss"].detach(), ""
        if not bool(loss.isfinite()):
            found = f"{float(loss)}"
        elif engine.scaler is None and not bool(_gradient_norm(engine.optimizer).isfinite()):
            found = f"{float(loss):.4g} with a gradient that is not finite"
        if not any_process(bool(found), loss.device):
            return
        batch: Any = engine.state.batch
        named = isinstance(batch, dict) and "case" in batch
        names = [str(name) for name in batch["case"]] if named else ["without a name"]
        shares = [share for share in gather_objects((found, names)) if share[0]]
        epoch, step = engine.state.epoch, (engine.state.iteration - 1) % int(engine.state.epoch_length or 1) + 1
        cases = ", ".join(case for share in shares for case in share[1])
        kept = f"{self.checkpoint} has epoch {epoch - 1}" if epoch > 1 else "no epoch was completed"
        raise UserError(
            "the training diverged",
            f"epoch {epoch}, step {step}, cases {cases}",
            "a finite loss",
            shares[0][0],
            f"look at these images (dcd check), or lower --learning_rate; {kept}",
        )


def _gradient_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
