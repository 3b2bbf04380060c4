"""``training.json`` of a run that was interrupted."""

from ignite.engine import Events

from dcd_ext.handlers import TrainingRecord
from dcd_ext.io import write_json
from tests.conftest import read_json


def test_epochs_that_are_trained_again_replace_their_old_entries(make_trainer, tmp_path):
    """The record may be newer than the checkpoint: of a run resumed after epoch 1, epochs 2 and 3 are trained anew."""
    old = [{"epoch": epoch, "seconds": 100.0, "loss": -float(epoch)} for epoch in (1, 2, 3)]
    write_json({"seconds": 300.0, "epochs": old}, tmp_path / "training.json")
    trainer = make_trainer(handlers=[TrainingRecord(str(tmp_path / "training.json"))], max_epochs=3)

    @trainer.on(Events.STARTED)
    def resume():
        trainer.state.epoch, trainer.state.iteration = 1, 2

    trainer.run()
    record = read_json(tmp_path / "training.json")
    assert [entry["epoch"] for entry in record["epochs"]] == [1, 2, 3]
    assert record["epochs"][0] == old[0] and all(entry["loss"] > 0 for entry in record["epochs"][1:])
    assert 100.0 < record["seconds"] < 200.0
