"""Verify: our bundles pass, and each check can fail."""

import json
import re
import shutil
import subprocess
import zipfile

import pytest
import torch

from dcd_ext.bundles.checks import FAILED, OK, SKIPPED
from dcd_ext.bundles.export import TS_TOLERANCE
from dcd_ext.bundles.sums import write_sums
from dcd_ext.bundles.verify import verify
from dcd_ext.bundles.verify_text import TEXT_CHECKS
from dcd_ext.commands.main import main as dcd
from dcd_ext.io import write_json
from tests.bundles.conftest import NAME
from tests.conftest import BUNDLES, read_json


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in BUNDLES.iterdir()))
def test_our_bundles(name):
    """All nine, as they are committed: what needs weights does not apply."""
    status = {r.check: r.status for r in verify(BUNDLES / name) if r.check not in ("weights", "torchscript", "onnx")}
    assert status.pop("sha256") == status.pop("commands") == SKIPPED
    assert set(status.values()) == {OK} and len(status) == len(TEXT_CHECKS) - 1 + 2, status


@pytest.fixture
def unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    return tmp_path / NAME


def test_a_packed_bundle(packed, unpacked, capsys):
    assert dcd(["verify", str(packed), str(unpacked)]) == 0
    assert capsys.readouterr().out.count(" ok       torchscript  largest difference") == 2


def edit(root, file, change):
    path = root / file
    path.write_text(change(path.read_text("utf-8")), "utf-8")


def in_json(**values):
    return lambda text: json.dumps({**json.loads(text), **values})


def other_weights(root):
    state = torch.load(root / "models" / "model.pt", weights_only=True)
    torch.save({k: v + 100 * TS_TOLERANCE for k, v in state.items()}, root / "models" / "model.pt")


DEFECTS = {
    "files": lambda r: (r / "LICENSE").unlink(),
    "version": lambda r: edit(r, "configs/metadata.json", in_json(version="9.9.9")),
    "metadata": lambda r: edit(r, "configs/metadata.json", lambda t: t.replace('"task"', '"tasks"')),
    "paths": lambda r: edit(r, "configs/train.json", in_json(dataset_dir="/home/me/data")),
    "readme": lambda r: edit(r, "docs/README.md", lambda t: t.replace("--dataset_dir", "--datset_dir")),
    "weights": lambda r: edit(r, "docs/README.md", lambda t: t.replace(" parameters", "0 parameters")),
    "network": lambda r: edit(
        r, "configs/metadata.json", lambda t: t.replace('"num_channels": 3', '"num_channels": 2')
    ),
    "torchscript": other_weights,
    "properties": lambda r: edit(r, "configs/train.json", lambda t: t.replace('"max_epochs"', '"max_epoch"')),
}


@pytest.mark.parametrize("check", DEFECTS)
def test_each_check_fails_where_it_should(check, unpacked):
    DEFECTS[check](unpacked)
    write_sums(unpacked)
    results = {r.check: r for r in verify(unpacked)}
    assert results[check].status == FAILED, results[check]
    assert results["sha256"].status == OK


def test_a_large_file_belongs_elsewhere(unpacked):
    (unpacked / "docs" / "atlas.bin").write_bytes(bytes(26_000_000))
    (result,) = [r for r in verify(unpacked) if r.check == "sizes"]
    assert result.status == FAILED and "docs/atlas.bin" in result.detail


def test_debug_records_with_paths_are_found(unpacked):
    """What ``ckpt_export`` alone would have left in the archive."""
    path = unpacked / "models" / "model.ts"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/code/__torch__/net.py.debug_pkl", b"\x80\x02X\x10\x00\x00\x00/home/me/net.py q")
    (result,) = [r for r in verify(unpacked) if r.check == "paths"]
    assert result.status == FAILED and "models/model.ts" in result.detail


def test_network_definitions_are_equal_in_train_and_inference():
    """What distillation changes is no part of the network: plain and distilled student infer with the same config."""
    plain, distilled = (read_json(BUNDLES / f"{NAME}{s}" / "configs" / "inference.json") for s in ("", "_dcd"))
    assert plain == distilled


def test_results_of_runs_are_none_of_the_bundle(unpacked):
    """A tracked run leaves its executed config, with this machine's paths, in the folder where it ran."""
    write_json({"output_dir": str(unpacked / "eval")}, unpacked / "eval" / "config_20260101_000000.json")
    write_json({"output_dir": "/home/me/results"}, unpacked / "eval" / "config_20260101_000001.json")
    (result,) = [r for r in verify(unpacked) if r.check == "paths"]
    assert result.status == OK, result


PLANTED = "python -m monai.bundle run inference --config_file configs/inference.json"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("sh -c 'touch \"$MARK\"' -m monai.bundle run inference --config_file configs/inference.json", None),
        ("python -c \"import os; os.mkdir(os.environ['MARK'])\" -m monai.bundle run inference", None),
        ("torchrun --log-dir=logs -m monai.bundle run inference --config_file configs/inference.json", None),
        (PLANTED + " --device \"$open('{mark}', 'w')\"", "an expression as --device"),
        (PLANTED + " --output_dir %{mark}", "an expression as --output_dir"),
        ("python -m monai.bundle run inference --config_file {mark}.json", "no {mark}.json"),
        ("python -m monai.bundle run inference --config_file ../evil.json", "no ../evil.json"),
    ],
)
def test_a_stranger_s_readme_runs_nothing_but_the_bundle(command, problem, unpacked, prepared, tmp_path, monkeypatch):
    """Other programs are not run, and what MONAI would evaluate is refused before anything runs."""
    mark = tmp_path / "mark"
    (tmp_path / "mark.json").write_text(json.dumps({"inference": f"$open('{mark}', 'w')"}))
    (tmp_path / "evil.json").write_text((tmp_path / "mark.json").read_text())
    monkeypatch.setenv("MARK", str(mark))
    line = command.format(mark=mark).replace("\\", r"\\")
    for file in ("docs/README.md", "README.md"):
        edit(unpacked, file, lambda text: re.sub(r"(python|torchrun).* -m monai.bundle run.*", line, text))
    write_sums(unpacked)
    results = {r.check: r for r in verify(unpacked, prepared("hippocampus"))}
    assert not mark.exists()
    if problem is None:
        assert results["commands"].status == OK and "not run: it installs" in results["commands"].detail
    else:
        assert problem.format(mark=mark) in results["readme"].detail and results["commands"].status == SKIPPED


def test_a_bundle_copied_away_alone_passes(tmp_path, capsys):
    """Its README names the collection's scripts, which are not there."""
    shutil.copytree(BUNDLES / NAME, tmp_path / NAME, ignore=shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "eval"))
    assert dcd(["verify", str(tmp_path / NAME)]) == 0
    assert "6 commands" in capsys.readouterr().out


def test_weights_over_the_limit_do_not_belong_into_git(unpacked):
    (unpacked / "models" / "model.pt").write_bytes(bytes(26_000_000))
    assert next(r for r in verify(unpacked) if r.check == "sizes").status == OK
    for command in (["init", "-q"], ["add", "models/model.pt"]):
        subprocess.run(["git", "-C", str(unpacked), *command], check=True)
    (result,) = [r for r in verify(unpacked) if r.check == "sizes"]
    assert result.status == FAILED and "models/model.pt" in result.detail


def test_each_bundle_is_verified_and_missing_data_are_told(packed, tmp_path, capsys):
    assert dcd(["verify", "nowhere", str(packed)]) == 1
    printed = capsys.readouterr()
    assert "not a bundle – nowhere" in printed.err and " ok       torchscript" in printed.out
    assert dcd(["verify", str(packed), "--dataset_dir", "nowhere"]) == 1
    assert "no prepared data – nowhere – expected datalist.json" in capsys.readouterr().err
