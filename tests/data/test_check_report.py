"""The gate before training, and the memory a process may use."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dcd_ext.data import require_checked
from dcd_ext.data.memory import available_memory
from dcd_ext.errors import UserError
from dcd_ext.io import sha256


def _dataset(folder: Path, **report: object) -> Path:
    (folder / "datalist.json").write_text("{}")
    if report:
        digest = sha256(folder / "datalist.json")
        (folder / "check.json").write_text(json.dumps({"datalist_sha256": digest, "cache_bytes": 0, **report}))
    return folder


@pytest.mark.parametrize(
    ("report", "allow", "log"),
    [
        ({"errors": 0}, False, ""),
        ({"errors": 3}, True, "training on a data set with 3 errors, as asked"),
        ({}, False, "data set not checked"),
        ({"errors": 3, "datalist_sha256": "of another list"}, False, "the data list changed after its check"),
        ({"errors": "many"}, False, "check.json, errors – expected a whole number, found 'many'"),
    ],
)
def test_training_goes_on(
    report: dict, allow: bool, log: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        require_checked(_dataset(tmp_path, **report), allow_unchecked=allow)
    assert log in caplog.text and bool(caplog.records) == bool(log)


def test_training_is_refused_after_a_failed_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the data check failed – .*check.json – expected 0 errors, found 3 –"):
        require_checked(str(_dataset(tmp_path, errors=3)))


def test_no_data_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data list"):
        require_checked(tmp_path)


def test_the_gate_follows_the_script(command, phantoms, tmp_path: Path) -> None:
    source, out = phantoms("msd"), tmp_path / "out"
    command("prepare", "msd", "--source", source, "--output", out)
    command("check", out)
    require_checked(out)
    (source / "labelsTr" / "hippocampus_002.nii.gz").unlink()
    assert command("check", out).code == 1
    with pytest.raises(UserError, match="expected 0 errors, found 1"):
        require_checked(out)


def _group(root: Path, relative: str, files: dict[str, str]) -> None:
    folder = root / "sys/fs/cgroup" / relative
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "groups", "room"),
    [
        (
            "0::/job",
            {"job": {"memory.max": "5000", "memory.current": "3000", "memory.stat": "inactive_file 500"}},
            2500,
        ),
        (
            "0::/job/step",
            {
                "job/step": {"memory.max": "max", "memory.current": "1", "memory.stat": ""},
                "job": {"memory.max": "4000", "memory.current": "1000", "memory.stat": ""},
            },
            3000,
        ),
        (
            "7:cpu,memory:/docker/1",
            {"memory": {"memory.limit_in_bytes": "900", "memory.usage_in_bytes": "200", "memory.stat": ""}},
            700,
        ),
        ("0::/job", {"job": {"memory.max": "100", "memory.current": "300", "memory.stat": ""}}, 0),
    ],
)
def test_the_tightest_control_group_counts(line: str, groups: dict, room: int, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line + "\n")
    for relative, files in groups.items():
        _group(tmp_path, relative, files)
    assert available_memory(tmp_path) == room


def test_without_control_groups_free_memory_counts(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 2**20
