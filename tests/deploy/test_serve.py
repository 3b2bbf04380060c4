"""The app folder of MONAI Label."""

import shutil
from pathlib import Path

import pytest

from dcd_ext.errors import UserError
from deploy.label.serve import find_bundles, prepare_app, server_command
from tests.conftest import BUNDLES

NAME = "hippocampus_segmentation_student"


@pytest.fixture
def bundle(tmp_path):
    copy = tmp_path / "bundles" / NAME
    shutil.copytree(BUNDLES / NAME, copy, ignore=shutil.ignore_patterns("*.pt", "*.ts", "eval"))
    (copy / "models" / "model.pt").write_bytes(b"trained")
    (copy / "eval").mkdir()
    return copy


def test_the_server_gets_copies_and_what_it_trains_is_kept(bundle, tmp_path, capsys):
    app = tmp_path / "app"
    prepare_app(app, {NAME: bundle})
    weights = app / "model" / NAME / "models" / "model.pt"
    assert (app / "main.py").is_file() and (app / "guard.py").is_file()
    assert weights.read_bytes() == b"trained"
    assert not (weights.parents[1] / "eval").exists()
    assert not [*app.rglob("*.part"), *app.rglob(".tmp-*")]
    weights.write_bytes(b"trained further")
    prepare_app(app, {NAME: bundle})
    assert weights.read_bytes() == b"trained further" and f"kept {weights.parents[1]}" in capsys.readouterr().out
    weights.unlink()
    prepare_app(app, {NAME: bundle})
    assert weights.read_bytes() == b"trained"
    weights.write_bytes(b"trained further")
    prepare_app(app, {NAME: bundle}, fresh=True)
    assert weights.read_bytes() == b"trained"
    assert (bundle / "models" / "model.pt").read_bytes() == b"trained"


def test_the_server_listens_on_loopback_only(tmp_path):
    command = server_command(tmp_path, tmp_path, ["a", "b"], 8811)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("models") + 1] == "a,b"
    assert command[command.index("--uvicorn_app") + 1] == "guard:app"  # not open to pages of other sites


def test_what_is_no_bundle_is_refused(bundle, tmp_path):
    assert find_bundles([bundle]) == {NAME: bundle}
    with pytest.raises(UserError, match="not a bundle – .* – expected configs/inference.json in it, found none"):
        find_bundles([tmp_path])


def test_two_bundles_of_one_name_are_refused(bundle, tmp_path):
    namesake = tmp_path / "others" / NAME
    shutil.copytree(bundle, namesake)
    message = f"duplicate bundle name – {bundle} and {namesake} – expected another name for each, found {NAME} – "
    with pytest.raises(UserError, match=message):
        find_bundles([bundle, namesake])
    assert find_bundles([bundle, bundle]) == {NAME: bundle}  # the same one, twice


@pytest.fixture
def interrupted(monkeypatch):
    """Copying the weights ends half way, by Ctrl-C."""

    def copy(source, target, **_):
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        if Path(source).name == "model.pt":
            raise KeyboardInterrupt

    def interrupt():
        monkeypatch.setattr(shutil, "copyfile", copy)

    return interrupt


def test_an_interruption_leaves_no_half_bundle(bundle, tmp_path, interrupted, monkeypatch):
    app = tmp_path / "app"
    interrupted()
    with pytest.raises(KeyboardInterrupt):
        prepare_app(app, {NAME: bundle})
    assert not list(app.glob("model/*")) and not list(app.glob("*.part"))
    monkeypatch.undo()
    prepare_app(app, {NAME: bundle})
    assert (app / "model" / NAME / "models" / "model.pt").read_bytes() == b"trained"


def test_an_interruption_leaves_no_half_weights(bundle, tmp_path, interrupted, monkeypatch):
    app = tmp_path / "app"
    weights = app / "model" / NAME / "models" / "model.pt"
    prepare_app(app, {NAME: bundle})
    weights.unlink()
    interrupted()
    with pytest.raises(KeyboardInterrupt):
        prepare_app(app, {NAME: bundle})
    assert not list(weights.parent.glob("model.*"))
    monkeypatch.undo()
    prepare_app(app, {NAME: bundle})
    assert weights.read_bytes() == b"trained"


def test_an_interrupted_replacement_keeps_what_was_there(bundle, tmp_path, interrupted):
    app = tmp_path / "app"
    weights = app / "model" / NAME / "models" / "model.pt"
    prepare_app(app, {NAME: bundle})
    weights.write_bytes(b"trained further")
    interrupted()
    with pytest.raises(KeyboardInterrupt):
        prepare_app(app, {NAME: bundle}, fresh=True)
    assert weights.read_bytes() == b"trained further"
    assert (weights.parents[1] / "configs" / "inference.json").is_file()
