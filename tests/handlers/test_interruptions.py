"""Trainings that are asked to stop, diverge, or may not write: what is said, and what is left."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from torch import nn

from dcd_ext.errors import UserError
from dcd_ext.handlers import ResumableRun, WeightsLoader
from dcd_ext.handlers.run import Run
from dcd_ext.handlers.stop_on_sigterm import EXIT_CODE
from dcd_ext.inference.windows import SlidingWindowInferer
from dcd_ext.weights import load_weights, origin_of, save_checkpoint, save_weights
from tests.bundles.exact import assert_same_files
from tests.conftest import ToyNet, read_json
from tests.processes import SERVER


class Dropping(ToyNet):
    """Its steps draw random numbers, which have to be resumed, too."""

    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.2, self.training)


@pytest.fixture
def train(tmp_path, make_trainer):
    """A run of three epochs of two steps, validated by nobody until its end."""

    def build(folder="run", resume=False, change=None, run=None, **options):
        torch.manual_seed(0)
        network = Dropping()
        trainer = make_trainer(network, max_epochs=3, **options)
        case = {"image": torch.ones(1, 8, 8, 8), "label": torch.ones(1, 8, 8, 8)}
        loader = torch.utils.data.DataLoader([case])
        validator = SupervisedEvaluator(device="cpu", val_data_loader=loader, network=network)
        output = str(tmp_path / folder)
        state = {"network": network, "optimizer": trainer.optimizer}
        ResumableRun(output, f"{output}/models", state, validator, seed=3, resume=resume, run=run).attach(trainer)
        if change is not None:
            change(trainer)
        return trainer

    return build


def recorded(folder):
    return [{k: v for k, v in e.items() if "seconds" not in k} for e in read_json(folder / "training.json")["epochs"]]


@pytest.mark.parametrize(("step", "epochs", "interrupted"), [(1, 0, True), (2, 1, False), (3, 1, True)])
def test_sigterm_finishes_the_step_and_is_resumed_to_the_last_bit(train, tmp_path, step, epochs, interrupted):
    """In the middle of the first and a later epoch, and in an epoch's last step, after which the epoch is completed."""
    train("whole").run()

    def ask(trainer):
        trainer.add_event_handler(Events.ITERATION_STARTED(once=step), lambda: signal.raise_signal(15))

    with pytest.raises(SystemExit) as end:
        train("parts", change=ask).run()
    assert end.value.code == EXIT_CODE == 143
    content = torch.load(tmp_path / "parts" / "checkpoint_last.pt", weights_only=True)
    assert content["epoch"] == epochs and ("interrupted" in content) == interrupted
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train("parts", resume=True).run()
    assert_same_files(tmp_path / "whole", tmp_path / "parts", "models/model.pt", "checkpoint_last.pt")
    assert recorded(tmp_path / "whole") == recorded(tmp_path / "parts")


def test_sigterm_waits_for_the_step_of_accumulated_batches(train, tmp_path):
    def ask(trainer):
        trainer.accumulation_steps = 2
        trainer.add_event_handler(Events.ITERATION_STARTED(once=3), lambda: signal.raise_signal(15))

    with pytest.raises(SystemExit):
        train("parts", change=ask).run()
    content = torch.load(tmp_path / "parts" / "checkpoint_last.pt", weights_only=True)
    assert content["epoch"] == 2 and "interrupted" not in content  # the epoch's second batch completes the step


def test_a_training_gets_the_memory_that_its_validation_recorded(tmp_path, make_trainer):
    network, inferer = ToyNet(), SlidingWindowInferer((8, 8, 8))
    case = {"image": torch.ones(1, 8, 8, 8), "label": torch.ones(1, 8, 8, 8)}
    loader = torch.utils.data.DataLoader([case])
    validator = SupervisedEvaluator(device="cpu", val_data_loader=loader, network=network, inferer=inferer)
    known = inferer._recordings._known
    validator.add_event_handler(Events.ITERATION_COMPLETED, lambda: known.update(windows=None))  # as on a GPU
    trainer = make_trainer(network, max_epochs=1)
    ResumableRun(str(tmp_path), str(tmp_path), {"network": network}, validator).attach(trainer)
    trainer.run()
    assert validator.state.iteration == 1 and not known


def test_killed_between_any_two_writes_nothing_is_lost(train, tmp_path, monkeypatch):
    """Weights and record of the whole run, whichever file was the last that a killed run completed."""

    class Killed(BaseException):
        pass

    rename, left = os.replace, 0

    def replace(*names):
        nonlocal left
        rename(*names)
        left -= 1
        if not left:
            raise Killed

    train("whole").run()
    monkeypatch.setattr(os, "replace", replace)
    for number in range(1, 20):
        left, folder = number, f"parts {number}"
        trainer = train(folder)
        try:
            trainer.run()
        except Killed:
            resume = (tmp_path / folder / "checkpoint_last.pt").exists()
            if not resume or torch.load(tmp_path / folder / "checkpoint_last.pt", weights_only=True)["epoch"] < 3:
                left = 0
                train(folder, resume=resume).run()
        assert_same_files(tmp_path / "whole", tmp_path / folder, "models/model.pt", "checkpoint_last.pt")
        assert recorded(tmp_path / "whole") == recorded(tmp_path / folder), number
        if left > 0:
            break
    assert number > 7


def test_sigterm_in_the_last_step_of_all_lets_the_run_end(train, tmp_path):
    def ask(trainer):
        trainer.add_event_handler(Events.ITERATION_STARTED(once=6), lambda: signal.raise_signal(15))

    train(change=ask).run()
    assert torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)["epoch"] == 3


def spoil(what):
    """Make the loss, or only its gradient, infinite in the fifth step."""

    def change(trainer):
        def spoiled():
            if trainer.state.iteration == 5:
                weights = next(trainer.network.parameters())
                # the root's value is 0, its slope infinite
                factor = float("inf") if what == "loss" else 1 + (weights * 0).abs().sum().sqrt()
                trainer.state.output["loss"] = trainer.state.output["loss"] * factor

        trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, spoiled)

    return change


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_run_that_diverges_names_the_cases_and_keeps_the_last_good_epoch(train, tmp_path, what):
    trainer = train(change=spoil(what))
    for number, item in enumerate(trainer.data_loader.dataset):
        item["case"] = f"patient_{number}"
    expected = r"^the training diverged – epoch 3, step 1, cases patient_0, patient_1 – expected a finite loss, "
    expected += (
        r"found .*(inf|not finite) – look at these images .* lower --learning_rate; .*checkpoint_last.pt has epoch 2$"
    )
    with pytest.raises(UserError, match=expected):
        trainer.run()
    content = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=True)
    assert content["epoch"] == 2 and all(v.isfinite().all() for v in content["network"].values())
    assert all(p.isfinite().all() for p in trainer.network.parameters())


def test_a_batch_without_names_diverges_in_one_line_too(train):
    trainer = train(change=spoil("loss"))
    pairs = [(item["image"], item["label"]) for item in trainer.data_loader.dataset]
    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, lambda: setattr(trainer.state, "batch", pairs))
    with pytest.raises(UserError, match=r"^the training diverged – epoch 3, step 1, cases without a name – "):
        trainer.run()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    network = ToyNet()
    save_checkpoint(network.state_dict(), tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    network.encoder.stages[1][0].bias.data[2] = value
    expected = r"weights are not finite – .*model.pt, key .*encoder.stages.1.0.bias – .* found 1 of 4 values"
    with pytest.raises(UserError, match=expected):
        save_checkpoint({"ema": {"model": network.state_dict()}}, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    torch.save(network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(UserError, match=expected):
        load_weights(ToyNet(), tmp_path / "model.pt", "train again")


def test_a_full_disk_is_named_and_leaves_the_older_checkpoint(tmp_path):
    """A limit on the size of files, which the operating system reports as it does a full disk."""
    save_checkpoint({"epoch": 1}, tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(UserError, match=f"cannot write the file .* found {os.strerror(errno.EFBIG)}"):
            save_checkpoint({"epoch": 2, "weights": torch.zeros(2**16)}, tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert (tmp_path / "a.pt").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("place", ["output_dir", "ckpt_dir"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_batch(tmp_path, monkeypatch, place):
    folders = {"output_dir": tmp_path / "a", "ckpt_dir": tmp_path / "b"}
    write = os.replace

    def full(source, target):
        if os.path.dirname(target) == str(folders[place]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=f"cannot write the file – {folders[place]}.*found No space left on device"):
        Run().claim(**{name: str(folder) for name, folder in folders.items()})
    monkeypatch.setattr(os, "replace", write)
    folders[place].rename(tmp_path / "moved")
    folders[place].touch()  # a file in its place
    with pytest.raises(UserError, match=f"cannot create the output folder – {folders[place]}"):
        Run().claim(**{name: str(folder) for name, folder in folders.items()})


def hold(folders, connection):
    """In a process of its own."""
    run = Run()
    run.claim(*folders)
    connection.send("held")
    connection.recv()


@pytest.mark.parametrize("shared", ["output", "models"])
def test_a_second_training_is_refused_in_either_folder(tmp_path, shared):
    """Also of the weights alone; and no longer when the first was killed."""
    folders = {name: str(tmp_path / name) for name in ("output", "models")}
    other = {name: str(tmp_path / f"other {name}") for name in folders} | {shared: folders[shared]}
    mine, theirs = SERVER.Pipe()
    first = SERVER.Process(target=hold, args=(list(folders.values()), theirs))
    first.start()
    assert mine.recv() == "held"
    with pytest.raises(UserError, match=f"another training is using this folder – {folders[shared]} – wait"):
        Run().claim(*other.values())
    first.kill()
    first.join()
    run = Run()
    run.claim(*other.values())
    run.release()


def test_orphans_of_killed_writers_are_removed_and_no_others(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    files = {name: tmp_path / f".tmp-{pid}-{name}" for name, pid in (("gone.pt", gone.pid), ("mine.pt", os.getpid()))}
    files["reused.pt"] = tmp_path / f".tmp-{os.getpid()}-reused.pt"  # of an earlier process with this number
    files["foreign"] = tmp_path / ".tmp-note-foreign"
    for file in files.values():
        file.touch()
    os.utime(files["reused.pt"], (0, 0))
    run = Run()
    run.claim(str(tmp_path), str(tmp_path / "models"))
    run.release()
    assert {name for name, file in files.items() if file.exists()} == {"mine.pt", "foreign"}


def test_weights_of_an_earlier_run_are_named_before_they_are_replaced(train, tmp_path, caplog):
    train().run()
    assert "replaces" not in caplog.text
    train().run()
    assert f"replaces the weights of an earlier run (3 of 3 epochs) in {tmp_path}/run/models" in caplog.text


def run_of(**changes):
    options = {"fold": 2, "datalist_sha256": "ab", "config": {"seed": 1, "loss": {"weights": [1.0, 0.5]}}}
    return Run(**{**options, "versions": {"torch": "2"}, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": "all"}, "checkpoint of another fold – .* expected fold all, found 2 – resume with the options"),
        ({"datalist_sha256": "cd"}, "checkpoint of other data – .* expected datalist_sha256 cd, found ab"),
        ({"config": {"seed": 1, "loss": {"weights": [1.0, 0.25]}}}, "expected loss::weights::1 0.25, found 0.5"),
        ({"config": {"seed": 1}}, "expected loss::weights::0 not set, found 1.0"),
    ],
)
def test_a_run_is_resumed_by_the_same_run_only(train, changes, message, caplog):
    def kill(trainer):
        trainer.add_event_handler(Events.EPOCH_STARTED(once=3), lambda: (_ for _ in ()).throw(KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        train(run=run_of(), change=kill).run()
    with pytest.raises(UserError, match=message):
        train(run=run_of(**changes), resume=True).run()
    train(run=run_of(versions={"torch": "3"}), resume=True).run()
    assert "begun with {'torch': '2'}: not to the last bit" in caplog.text


@pytest.mark.parametrize(
    ("run", "refused", "said"),
    [
        (run_of(), False, ""),
        (run_of(fold=0), True, ""),
        (run_of(fold=0, datalist_sha256="cd"), False, "was trained on another datalist.json"),
    ],
)
def test_weights_are_not_scored_on_cases_they_were_trained_on(tmp_path, run, refused, said, caplog):
    path = tmp_path / "renamed.pt"
    save_weights(ToyNet().state_dict(), path, {**run_of().identity, "epoch": 7})
    assert list(torch.load(path, weights_only=True)) == list(ToyNet().state_dict()) and origin_of(path)["epoch"] == 7
    evaluator = SupervisedEvaluator(device="cpu", val_data_loader=[{}], network=ToyNet(), epoch_length=1)
    handler = WeightsLoader(evaluator.network, str(path), run)
    if refused:
        with pytest.raises(
            UserError, match=r"weights of another fold – .* expected fold 0 held out, found 2 – pass --fold 2"
        ):
            handler(evaluator)
    else:
        handler(evaluator)
    assert said in caplog.text


def test_weights_without_a_record_are_scored_with_a_warning(tmp_path, caplog):
    torch.save(ToyNet().state_dict(), tmp_path / "old.pt")
    evaluator = SupervisedEvaluator(device="cpu", val_data_loader=[{}], network=ToyNet(), epoch_length=1)
    WeightsLoader(evaluator.network, str(tmp_path / "old.pt"), run_of())(evaluator)
    assert "old.pt does not say what it was trained on" in caplog.text
