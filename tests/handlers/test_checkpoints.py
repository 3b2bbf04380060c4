import re

import pytest
import torch
from ignite.engine import Engine, Events

from dcd_ext.errors import UserError
from dcd_ext.handlers import BestModelSaver, ResumeCheckpoint
from tests.conftest import ToyNet


def validator(network, folder, scores):
    """An engine whose key metric runs through ``scores``, one per run."""
    scores = iter(scores)
    engine = Engine(lambda *_: None)
    engine.state.key_metric_name = "dice"
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(dice=next(scores)))
    saver = BestModelSaver(str(folder), network)
    saver.attach(engine)
    return engine, saver


def test_best_model_is_kept_as_a_plain_state_dict(tmp_path):
    network = ToyNet()
    engine, _ = validator(network, tmp_path, [0.5, 0.4])
    engine.run([0])
    best = {k: v.clone() for k, v in network.state_dict().items()}
    torch.nn.init.zeros_(network.head.weight)
    engine.run([0])
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved.keys() == best.keys() and all(torch.equal(saved[k], best[k]) for k in best)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_best_value_survives_a_resume(tmp_path):
    engine, saver = validator(ToyNet(), tmp_path, [0.9])
    engine.run([0])
    time = (tmp_path / "model.pt").stat().st_mtime_ns
    engine, new = validator(ToyNet(), tmp_path, [0.8, 0.95])
    new.load_state_dict(saver.state_dict())
    engine.run([0])
    assert (tmp_path / "model.pt").stat().st_mtime_ns == time
    engine.run([0])
    assert (tmp_path / "model.pt").stat().st_mtime_ns > time


def test_only_one_process_writes(tmp_path):
    network = ToyNet()
    engine = Engine(lambda *_: None)
    engine.state.key_metric_name = "dice"
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(dice=1.0))
    BestModelSaver(str(tmp_path), network, write=False).attach(engine)
    engine.run([0])
    assert not list(tmp_path.iterdir())


def test_every_file_loads_with_weights_only(tmp_path, make_trainer):
    network = ToyNet()
    trainer = make_trainer(network)
    path = str(tmp_path / "last.pt")
    ResumeCheckpoint(path, {"network": network, "optimizer": trainer.optimizer}).attach(trainer)
    trainer.run()
    content = torch.load(path, weights_only=True)
    assert content["epoch"] == 2 and set(content) == {"network", "optimizer", "epoch"}


def test_resume_without_a_checkpoint(tmp_path, make_trainer):
    trainer = make_trainer()
    ResumeCheckpoint(str(tmp_path / "last.pt"), {}, resume=True).attach(trainer)
    with pytest.raises(UserError, match=r"nothing to resume – .*last.pt – expected a checkpoint, found no such file"):
        trainer.run()


def test_resume_of_another_configuration(tmp_path, make_trainer):
    path = str(tmp_path / "last.pt")
    network = ToyNet(channels=2)
    trainer = make_trainer(network, [ResumeCheckpoint(path, {"network": network})])
    trainer.run()
    other = ToyNet(channels=3)
    trainer = make_trainer(other, [ResumeCheckpoint(path, {"network": other}, resume=True)], max_epochs=4)
    with pytest.raises(UserError, match=r"checkpoint of another configuration .*an entry 'network' that fits"):
        trainer.run()
    state = {"network": network, "kd_loss": ToyNet()}
    trainer = make_trainer(network, [ResumeCheckpoint(path, state, resume=True)], max_epochs=4)
    with pytest.raises(UserError, match=re.escape("expected the entry 'kd_loss', found epoch, network")):
        trainer.run()


def test_resume_of_a_complete_run(tmp_path, make_trainer):
    path = str(tmp_path / "last.pt")
    network = ToyNet()
    make_trainer(network, [ResumeCheckpoint(path, {"network": network})]).run()
    trainer = make_trainer(network, [ResumeCheckpoint(path, {"network": network}, resume=True)])
    with pytest.raises(UserError, match=r"run is already complete .*expected fewer than 2 epochs, found 2 – raise"):
        trainer.run()
