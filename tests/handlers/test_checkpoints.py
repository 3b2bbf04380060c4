import functools
import re

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

from dcd_ext import distributed
from dcd_ext.errors import UserError
from dcd_ext.handlers import Checkpoints
from tests.conftest import ToyNet


def validated(network, folder, scores, resume=False, max_epochs=None):
    """A trainer of one epoch per score, each validated with it; ``network.weights`` counts the epochs."""
    validator = Engine(lambda *_: None)
    validator.network = network
    validator.state.best_metric, validator.state.best_metric_epoch = -1.0, -1
    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate():
        epoch = trainer.state.epoch
        nn.init.constant_(network.head.weight, epoch)
        if scores[epoch - 1] > validator.state.best_metric:
            validator.state.best_metric, validator.state.best_metric_epoch = scores[epoch - 1], epoch

    Checkpoints(str(folder), str(folder / "models"), {"network": network}, validator, resume).attach(trainer)
    trainer.run([0], max_epochs=max_epochs or len(scores))


def best_epoch(folder):
    return torch.load(folder / "models" / "model.pt", weights_only=True)["head.weight"].unique().item()


def test_the_best_epochs_weights_are_kept_as_a_plain_state_dict(tmp_path):
    network = ToyNet()
    validated(network, tmp_path, [0.4, 0.5, 0.3])
    assert best_epoch(tmp_path) == 2.0
    assert torch.load(tmp_path / "models" / "model.pt", weights_only=True).keys() == network.state_dict().keys()
    assert sorted(p.name for p in tmp_path.rglob("*.pt*")) == ["checkpoint_last.pt", "model.pt"]


def test_every_epoch_can_be_resumed_from(tmp_path):
    """Also the last, and whatever its number."""
    found = []
    trainer = Engine(lambda *_: None)
    Checkpoints(str(tmp_path), str(tmp_path), {}).attach(trainer)
    read = functools.partial(torch.load, tmp_path / "checkpoint_last.pt", weights_only=True)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: found.append(read()["epoch"]))
    trainer.run([0], max_epochs=3)
    assert found == [1, 2, 3]


@pytest.mark.parametrize(("later", "best"), [(0.8, 1.0), (0.95, 3.0)])
def test_best_value_survives_a_resume(tmp_path, later, best, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "__call__", _until(2))
        with pytest.raises(KeyboardInterrupt):
            validated(ToyNet(), tmp_path, [0.9, 0.1, later])
    assert best_epoch(tmp_path) == 1.0
    validated(ToyNet(), tmp_path, [0.9, 0.1, later], resume=True)
    assert best_epoch(tmp_path) == best


def _until(epoch):
    """Write checkpoints, and be killed when one is written after ``epoch``."""
    write = Checkpoints.__call__

    def call(self, engine):
        write(self, engine)
        if engine.state.epoch == epoch:
            raise KeyboardInterrupt

    return call


def test_only_one_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "is_main_process", lambda: False)
    validated(ToyNet(), tmp_path, [0.5])
    assert not list(tmp_path.iterdir())


def keep(folder, state, resume=False):
    return Checkpoints(str(folder), str(folder), state, resume=resume)


def test_every_file_loads_with_weights_only(tmp_path, make_trainer):
    network = ToyNet()
    trainer = make_trainer(network)
    keep(tmp_path, {"network": network, "optimizer": trainer.optimizer, "none": None}).attach(trainer)
    trainer.run()
    content = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert content["epoch"] == 2 and set(content) == {"network", "optimizer", "epoch", "max_epochs"}


def test_resume_without_a_checkpoint(tmp_path, make_trainer):
    trainer = make_trainer()
    keep(tmp_path, {}, resume=True).attach(trainer)
    with pytest.raises(
        UserError, match=r"nothing to resume – .*checkpoint_last.pt – expected a checkpoint, found no such file"
    ):
        trainer.run()


def test_resume_of_another_configuration(tmp_path, make_trainer):
    network = ToyNet(channels=2)
    trainer = make_trainer(network, [keep(tmp_path, {"network": network})])
    trainer.run()
    other = ToyNet(channels=3)
    trainer = make_trainer(other, [keep(tmp_path, {"network": other}, resume=True)])
    with pytest.raises(UserError, match=r"checkpoint of another configuration .*an entry 'network' that fits"):
        trainer.run()
    state = {"network": network, "kd_loss": ToyNet()}
    trainer = make_trainer(network, [keep(tmp_path, state, resume=True)])
    with pytest.raises(UserError, match=re.escape("expected the entry 'kd_loss', found epoch, max_epochs, network")):
        trainer.run()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda c: c.update(epoch=-3),
            "unusable checkpoint – .*checkpoint_last.pt, epoch – expected at least 0, found -3",
        ),
        (lambda c: c.update(epoch=0.5), "epoch – expected a whole number, found 0.5"),
        (lambda c: c.pop("epoch"), "unusable checkpoint .* – expected 'epoch', found none"),
        (lambda c: c.update(network=[1]), "network – expected an object, found .1."),
        (
            lambda c: c["optimizer"].pop("param_groups"),
            "an entry 'optimizer' that fits, found optimizer: other entries",
        ),
        (lambda c: c["optimizer"]["param_groups"][0].update(lr="x"), r"optimizer.param_groups\[0\].lr: no number"),
        (lambda c: c["schedule"].update(last_epoch=float("nan")), "found schedule.last_epoch: no number"),
        (lambda c: c["schedule"].clear(), "found schedule: other entries"),
        (lambda c: c.update(optimizer=None), "found optimizer: other entries"),
    ],
)
def test_a_foreign_checkpoint_is_one_line(spoil, message, tmp_path, make_trainer):
    network = ToyNet()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule}
    make_trainer(network, [keep(tmp_path, state)]).run()
    content = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    spoil(content)
    torch.save(content, tmp_path / "checkpoint_last.pt")
    with pytest.raises(UserError, match=message) as error:
        make_trainer(network, [keep(tmp_path, state, resume=True)]).run()
    assert "\n" not in str(error.value)


def test_resume_of_a_complete_run(tmp_path, make_trainer):
    network = ToyNet()
    make_trainer(network, [keep(tmp_path, {"network": network})]).run()
    trainer = make_trainer(network, [keep(tmp_path, {"network": network}, resume=True)])
    with pytest.raises(
        UserError, match=r"run is already complete .*expected fewer than 2 epochs, found 2 – start a new run"
    ):
        trainer.run()


def test_resume_auto_begins_goes_on_and_ends(tmp_path, make_trainer):
    """One command, whatever there is: nothing, one epoch of two, a complete run."""
    steps = []
    for last in (1, 2, 2):
        network = ToyNet()
        trainer = make_trainer(network, [keep(tmp_path, {"network": network}, resume="auto")])
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=last), trainer.terminate)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: steps.append(engine.state.epoch))
        trainer.run()
    assert steps == [1, 2]


@pytest.mark.parametrize("elsewhere", ["no checkpoint", "step 1"])
def test_processes_that_find_different_checkpoints_are_refused(elsewhere, tmp_path, make_trainer, monkeypatch):
    """Machines without a shared folder: their processes would train different weights together."""
    make_trainer(network := ToyNet(), [keep(tmp_path, {"network": network})]).run()
    # a complete run, so that nothing else is gathered
    monkeypatch.setattr("dcd_ext.handlers.checkpoints.gather_objects", lambda mine: [mine, elsewhere])
    trainer = make_trainer(network, [keep(tmp_path, {"network": network}, resume="auto")])
    with pytest.raises(UserError, match=rf"processes with different checkpoints .* found step \d+, {elsewhere} – "):
        trainer.run()


def test_a_run_of_another_length_is_refused(tmp_path, make_trainer):
    """Its schedule would go on where the shorter one ended: with a learning rate of 0."""
    network = ToyNet()
    make_trainer(network, [keep(tmp_path, {"network": network})]).run()
    trainer = make_trainer(network, [keep(tmp_path, {"network": network}, resume=True)], max_epochs=4)
    with pytest.raises(UserError, match=r"checkpoint of another configuration .*expected max_epochs 4, found 2"):
        trainer.run()


def average(tmp_path, loaded=None, resume=False):
    """One more iteration, which adds 1 to the only weight; returns network and average."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 100.0)
    ema = EMAHandler(network, momentum=0.25)
    trainer = Engine(lambda engine, batch: network.weight.data.add_(1.0))
    if loaded is not None:
        trainer.add_event_handler(Events.STARTED, lambda: nn.init.constant_(network.weight, loaded))
    keep(tmp_path, {"network": network, "ema": ema}, resume).attach(trainer)
    ema.attach(trainer)
    trainer.run([0], max_epochs=2 if resume else 1)
    return network.weight.item(), ema.ema_model.weight.item()


def test_fine_tuning_averages_the_loaded_weights_not_the_random_ones(tmp_path):
    assert average(tmp_path, loaded=2.0) == (3.0, 0.75 * 2.0 + 0.25 * 3.0)


def test_a_fresh_run_averages_from_its_initial_weights(tmp_path):
    assert average(tmp_path) == (101.0, 100.25)


def test_a_resumed_run_keeps_its_average(tmp_path):
    state = {"network": {"weight": torch.tensor([[2.0]])}, "epoch": 1, "max_epochs": 2}
    state["ema"] = {"model": {"weight": torch.tensor([[40.0]])}, "updates": 0}
    torch.save(state, tmp_path / "checkpoint_last.pt")
    assert average(tmp_path, resume=True) == (3.0, 0.75 * 40.0 + 0.25 * 3.0)


def test_a_resumed_average_goes_on_with_its_warm_up(tmp_path):
    """Momentum falls from step to step; a warm-up that began again would weigh the later weights more."""

    def run(folder, resume=False):
        network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(network.weight)
        ema = EMAHandler(network, momentum=0.1, momentum_warmup=0.9, warmup_iters=5)
        trainer = Engine(lambda engine, batch: network.weight.data.add_(1.0))
        keep(folder, {"network": network, "ema": ema}, resume).attach(trainer)
        ema.attach(trainer)
        trainer.run([0], max_epochs=4)
        return ema.ema_model.weight.item()

    whole = run(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "__call__", _until(2))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts")
    assert run(tmp_path / "parts", resume=True) == whole


def test_random_numbers_go_on_on_the_device_that_trains(tmp_path, monkeypatch):
    """Which need not be torch's current one."""
    states = {f"cuda:{i}": torch.full((16,), i, dtype=torch.uint8) for i in range(2)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda:0": states[str(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, device="cuda:0": states.update({str(device): s}))
    trainers = [Engine(lambda *_: None) for _ in range(2)]
    for trainer in trainers:
        trainer.state.device = torch.device("cuda:1")
    trainers[0].state.epoch, trainers[0].state.max_epochs = 1, 2
    save, resume = (Checkpoints(str(tmp_path), str(tmp_path), {"network": ToyNet()}, resume=r) for r in (False, True))
    save.save(trainers[0], steps=1)
    states.update({name: state + 10 for name, state in states.items()})
    resume.attach(trainers[1])
    trainers[1].run([0, 0], max_epochs=2)
    assert [int(state[0]) for state in states.values()] == [10, 1]
