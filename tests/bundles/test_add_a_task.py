"""The example of docs/add_a_task.md builds bundles; tests/test_installed.py trains and uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dcd_ext.bundles.sources import BUNDLE_SRC
from dcd_ext.commands.main import main as dcd
from tests.conftest import BUNDLES, ROLES, ROOT, read_json

DOC = (ROOT / "docs" / "add_a_task.md").read_text("utf-8")


def documented_task() -> str:
    """The JSON file of the page."""
    (text,) = re.findall(r"^```json\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    return text


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``dcd build`` makes of the documented file."""
    root = tmp_path_factory.mktemp("task")
    (name,) = re.findall(r"dcd build (\w+\.json) --output bundles", DOC)
    (root / name).write_text(documented_task(), "utf-8")
    assert dcd(["build", str(root / name), "--output", str(root / "bundles")]) == 0
    return root / "bundles"


def test_one_file_gives_three_bundles(bundles: Path) -> None:
    assert {path.name for path in bundles.iterdir()} == {f"prostate_segmentation_{role}" for role in ROLES}
    train = read_json(bundles / "prostate_segmentation_student_dcd" / "configs" / "train.json")
    task = json.loads(documented_task())
    assert all(train[key] == value for key, value in {**task["common"], "reduction_factor": 4}.items())
    readme = (bundles / "prostate_segmentation_student" / "docs" / "README.md").read_text("utf-8")
    assert task["readme"]["data"] in readme and "256 × 320 × 20 voxels at 0.62 × 0.62 × 3.6 mm" in readme


def test_the_docs_commands_name_what_is_built(bundles: Path) -> None:
    for name in re.findall(r"B=bundles/(\w+)", DOC):
        assert (bundles / name / "configs" / "train.json").is_file()


def test_a_shipped_task_is_built_by_its_name(tmp_path: Path) -> None:
    assert dcd(["build", "hippocampus", "--output", str(tmp_path)]) == 0
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert path.read_bytes() == (BUNDLES / path.relative_to(tmp_path)).read_bytes(), path


def test_a_task_with_a_shipped_name_does_not_get_the_shipped_results(tmp_path: Path) -> None:
    (tmp_path / "hippocampus.json").write_bytes((BUNDLE_SRC / "tasks" / "hippocampus.json").read_bytes())
    assert dcd(["build", str(tmp_path / "hippocampus.json"), "--output", str(tmp_path)]) == 0
    metadata = "hippocampus_segmentation_teacher/configs/metadata.json"
    assert read_json(tmp_path / metadata)["eval_metrics"] == {} != read_json(BUNDLES / metadata)["eval_metrics"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("320, 20]", "320, 21]", "does not fit the strides along z"),
        ('"fragments": {', '"other": {', "expected 'fragments', found none"),
        ("{", "[", "unreadable task file"),
    ],
)
def test_a_spoiled_task_file_is_one_line(old: str, new: str, text: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "prostate.json").write_text(documented_task().replace(old, new), "utf-8")
    assert dcd(["build", str(tmp_path / "prostate.json"), "--output", str(tmp_path / "bundles")]) == 1
    assert not (tmp_path / "bundles").exists()
    error = capsys.readouterr().err
    assert text in error and "prostate.json" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("name", "text"),
    [("nowhere.json", "no such task – nowhere.json"), ("my task.json", "unusable name – ")],
)
def test_no_task_file_is_one_line(name: str, text: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my task.json").write_text(documented_task(), "utf-8")
    assert dcd(["build", name, "--output", "bundles"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {text}")
