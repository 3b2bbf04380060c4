"""A training tracked by a real MLflow server, which is stopped in its middle and started again.

The training stands still (SIGSTOP) meanwhile, so that no machine is too slow for it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
from mlflow import MlflowClient

from tests.bundles.conftest import make_small
from tests.conftest import SHORT, read_json
from tests.integration.conftest import slow_alone
from tests.processes import start_fork

pytestmark = [
    pytest.mark.integration,
    slow_alone,
    pytest.mark.skipif(find_spec("mlflow.server") is None, reason="MLflow is installed without its server"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
NAME = "hippocampus_segmentation_student"
EPOCHS = 6


@pytest.fixture
def server(tmp_path):
    """An MLflow server that is not started yet."""
    made = Server(tmp_path)
    yield made
    made.stop()


class Server:
    """``mlflow server`` on loopback, on whose port nobody listens while it is stopped."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri, self.process = folder, f"http://127.0.0.1:{self.port}", None

    def start(self):
        where = ["--host", "127.0.0.1", "--port", self.port, "--workers", 1]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination", self.folder]
        command = [sys.executable, "-m", "mlflow", "server", *where, *store]
        # a group of its own: the server starts processes
        with open(self.folder / "server.log", "a") as log:
            words = list(map(str, command))
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers)

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def wait_for(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("waited for five minutes")


def train(root, data, output, uri):
    output.mkdir()
    where = ["--dataset_dir", data, "--output_dir", output, "--ckpt_dir", output / "models"]
    tracking = ["--tracking", "mlflow", "--tracking_uri", uri, "--max_epochs", EPOCHS]
    arguments = ["run", "training", "--config_file", "configs/train.json", *where, *tracking]
    return start_fork("monai.bundle", arguments, root, output, {"OMP_NUM_THREADS": "1"})


def epochs(output):
    file = output / "training.json"
    return [entry["epoch"] for entry in read_json(file)["epochs"]] if file.exists() else []


def test_a_server_that_is_stopped_and_started_again(server, prepared, tmp_path):
    """The run ends well, its local metrics are complete, and the server has them, too."""
    root, output = make_small(NAME, tmp_path, short=SHORT), tmp_path / "run"
    server.start()
    run = train(root, prepared("hippocampus"), output, server.uri)

    def reaches(epoch):
        def reached():
            assert run.is_alive(), (output / "stderr").read_text()
            return epoch in epochs(output)

        wait_for(reached)
        os.kill(run.pid, signal.SIGSTOP)

    reaches(1)
    server.stop()
    os.kill(run.pid, signal.SIGCONT)
    reaches(4)
    server.start()
    os.kill(run.pid, signal.SIGCONT)
    run.join(600)
    printed = (output / "stdout").read_text() + (output / "stderr").read_text()
    assert run.exitcode == 0 and printed.count("the training goes on without it") == 1, printed
    assert "Traceback" not in printed
    recorded = read_json(output / "training.json")["epochs"]
    assert [entry["epoch"] for entry in recorded] == list(range(1, EPOCHS + 1))
    client = MlflowClient(server.uri)
    [tracked] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    history = {m.step: m.value for m in client.get_metric_history(tracked.info.run_id, "loss")}
    assert history == {entry["epoch"]: pytest.approx(entry["loss"], rel=1e-6) for entry in recorded}
    assert tracked.info.status == "FINISHED"


def test_a_server_that_is_absent_at_the_start(server, prepared, tmp_path):
    root, output = make_small(NAME, tmp_path, short=SHORT), tmp_path / "run"
    run = train(root, prepared("hippocampus"), output, server.uri)
    run.join(600)
    printed = (output / "stdout").read_text() + (output / "stderr").read_text()
    assert run.exitcode == 1 and "Traceback" not in printed
    assert printed.strip().splitlines()[-1].startswith(f"error: MLflow does not answer – {server.uri}")
    assert not list(output.rglob("*.pt"))
