"""The app folder of MONAI Label."""

import shutil

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
    assert prepare_app(app, [bundle]) == [NAME]
    weights = app / "model" / NAME / "models" / "model.pt"
    assert (app / "main.py").is_file() and weights.read_bytes() == b"trained"
    assert not (weights.parents[1] / "eval").exists() and not list(app.rglob("*.part"))
    weights.write_bytes(b"trained further")
    prepare_app(app, [bundle])
    assert weights.read_bytes() == b"trained further" and f"kept {weights.parents[1]}" in capsys.readouterr().out
    weights.unlink()
    prepare_app(app, [bundle])
    assert weights.read_bytes() == b"trained"
    weights.write_bytes(b"trained further")
    prepare_app(app, [bundle], fresh=True)
    assert weights.read_bytes() == b"trained"
    assert (bundle / "models" / "model.pt").read_bytes() == b"trained"


def test_the_server_listens_on_loopback_only(tmp_path):
    command = server_command(tmp_path, tmp_path, ["a", "b"], 8811)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("models") + 1] == "a,b"


def test_what_is_no_bundle_is_refused(bundle, tmp_path):
    assert find_bundles([bundle]) == [bundle]
    with pytest.raises(UserError, match="no bundle – .* – expected configs/inference.json in it, found none"):
        find_bundles([tmp_path])
