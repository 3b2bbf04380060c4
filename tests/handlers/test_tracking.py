"""A run is tracked by an MLflow store that is there, is not, or comes and goes."""

from __future__ import annotations

import socket

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dcd_ext.errors import UserError, user_error
from dcd_ext.handlers import tracking
from dcd_ext.handlers.tracking import Tracking, require_server
from tests.conftest import make_workflow

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def closed(monkeypatch):
    """The address of nobody."""
    for name in tracking._PATIENCE:
        monkeypatch.setenv(name, tracking._PATIENCE[name])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_server_that_is_not_there_is_refused_in_one_line(closed, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed)  # comes before the config's
    with pytest.raises(
        UserError, match=f"MLflow does not answer – {closed} – expected an MLflow server, found .*refused"
    ):
        require_server("http://127.0.0.1:1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(RuntimeError) as error:
        options = {"tracking": "mlflow", "tracking_uri": closed, "output_dir": str(tmp_path)}
        make_workflow("hippocampus_segmentation_student", "train", **options)
    assert "MLflow does not answer" in str(user_error(error.value))


def test_a_server_that_accepts_and_is_silent_is_refused_within_seconds(closed, monkeypatch):
    """Each byte it sends starts the time-out of HTTP anew."""
    monkeypatch.setattr(tracking, "_ANSWERS_WITHIN", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"MLflow does not answer – {uri} – .* found no answer within 0.5 s"):
            require_server(uri)


def test_what_a_server_misses_while_it_is_away_is_sent_when_it_is_back(make_trainer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "_PAUSE", 0.0)
    monkeypatch.setattr(Tracking, "_told", False)
    uri = f"sqlite:///{tmp_path}/mlruns.db"
    handler = Tracking(tracking_uri=uri, output_transform=lambda o: o["loss"], close_on_complete=True)
    answer = handler.client.log_batch

    def away_for_a_while(*args, **kwargs):
        if 2 <= trainer.state.iteration <= 4:
            raise MlflowException("connection refused")
        return answer(*args, **kwargs)

    monkeypatch.setattr(handler.client, "log_batch", away_for_a_while)
    trainer = make_trainer(max_epochs=3, handlers=[handler])
    trainer.run()
    client = MlflowClient(uri)
    [run] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [m.step for m in client.get_metric_history(run.info.run_id, "Loss")] == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED" and caplog.text.count("does not answer, the training goes on") == 1
