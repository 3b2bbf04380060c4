"""The average starts from the weights the run starts with."""

import torch
from ignite.engine import Engine, Events
from torch import nn

from dcd_ext.handlers import ResumableEMAHandler


def run(loaded=None, restored=None):
    """One iteration that adds 1 to the only weight; returns network and average."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 100.0)
    ema = ResumableEMAHandler(network, momentum=0.25)
    trainer = Engine(lambda engine, batch: network.weight.data.add_(1.0))
    if loaded is not None:
        trainer.add_event_handler(Events.STARTED, lambda: nn.init.constant_(network.weight, loaded))
    if restored is not None:
        trainer.add_event_handler(Events.STARTED, lambda: ema.load_state_dict(restored))
    ema.attach(trainer)
    trainer.run([0])
    return network.weight.item(), ema.ema_model.weight.item()


def test_fine_tuning_averages_the_loaded_weights_not_the_random_ones():
    assert run(loaded=2.0) == (3.0, 0.75 * 2.0 + 0.25 * 3.0)


def test_a_fresh_run_averages_from_its_initial_weights():
    assert run() == (101.0, 100.25)


def test_a_resumed_run_keeps_its_average():
    restored = {"model": {"weight": torch.tensor([[40.0]])}, "updates": 0}
    assert run(loaded=2.0, restored=restored) == (3.0, 0.75 * 40.0 + 0.25 * 3.0)
