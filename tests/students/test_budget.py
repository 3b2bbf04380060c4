"""``dcd distil --max_seconds --max_ram``: the widest student that fits, or what the narrowest needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from dcd_ext.commands.main import main as dcd
from dcd_ext.students import budget
from dcd_ext.students.budget import Budget, Measured, Volume
from dcd_ext.students.teacher import TeacherBundle
from tests.conftest import BUNDLES
from tests.students.zoo import NETWORKS, make_bundle


def measure_like(seconds: dict[int, list[float]], calls: list[int]) -> Any:
    """A stand-in whose first and later answers per width are given."""

    def measure(_teacher: Any, factor: int, definition: Any, _volume: Volume, _budget: Budget) -> Measured:
        calls.append(factor)
        answers = seconds[factor]
        return Measured(
            factor, definition, 100 // factor, answers.pop(0) if len(answers) > 1 else answers[0], 1 / factor
        )

    return measure


@pytest.mark.parametrize(
    ("seconds", "limits", "chosen"),
    [
        ({1: [8.0], 2: [3.0], 4: [2.0]}, ["--max_seconds", "4"], 2),
        ({1: [8.0], 2: [3.0, 5.0], 4: [2.0]}, ["--max_seconds", "4"], 4),  # measured again, the second does not fit
        ({1: [8.0], 2: [3.0], 4: [2.0]}, ["--max_seconds", "9", "--max_ram", "0.3"], 4),
        ({1: [8.0], 2: [3.0], 4: [2.0]}, ["--max_ram", "2"], 1),
    ],
)
def test_the_widest_that_fits_twice_is_made(
    seconds: Any, limits: list[str], chosen: int, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(budget, "measure", measure_like(seconds, calls))
    # 16 filters: a width of 4 is the smallest
    teacher, output = make_bundle(tmp_path / "zoo", NETWORKS["SegResNet"]), tmp_path / "student"
    code = dcd(["distil", str(teacher), "--output", str(output), *limits, "--shape", "9", "9", "9"])
    printed = capsys.readouterr().out
    if chosen == 1:  # nothing to distil into
        assert code == 1 and not output.exists()
        return
    assert code == 0 and calls[:3] == [1, 2, 4] and calls[-1] == chosen and len(calls) > 3
    assert f"reduction {chosen} is within the budget" in printed and "seconds" in printed
    assert f'"init_filters": {16 // chosen}' in (output / "configs" / "inference.json").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in BUNDLES.iterdir()))
def test_the_bundles_of_the_collection_need_no_trust(name: str) -> None:
    """Their inferer is of this project."""
    assert isinstance(TeacherBundle(BUNDLES / name).inferer(), SlidingWindowInferer)


def test_an_impossible_budget_says_what_the_narrowest_needs(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(budget, "measure", measure_like({1: [8.0], 2: [3.0], 4: [2.0]}, []))
    teacher = make_bundle(tmp_path / "zoo", NETWORKS["SegResNet"])
    options = ["--output", str(tmp_path / "s"), "--max_seconds", "1", "--max_ram", "8", "--shape", "9", "9", "9"]
    assert dcd(["distil", str(teacher), *options]) == 1 and not (tmp_path / "s").exists()
    line = capsys.readouterr().err.splitlines()[-1]
    assert "expected at most 1 s and 8 GiB, found 2.00 s and 0.25 GiB at reduction 4" in line


def test_the_volume_is_turned_and_resampled_as_in_inference(tmp_path: Path) -> None:
    """2 mm voxels become 1 mm; the bundle's own inferer runs on them."""
    import nibabel as nib
    import numpy as np

    teacher = TeacherBundle(make_bundle(tmp_path / "zoo", NETWORKS["SegResNet"]))
    nib.save(nib.Nifti1Image(np.ones((8, 9, 10), np.float32), np.diag([2, 2, 2, 1])), tmp_path / "coarse.nii.gz")
    volume = tmp_path / "coarse.nii.gz"
    assert budget._read(teacher, volume).shape == (1, 1, 15, 17, 19)
    assert teacher.inferer().roi_size == [16, 16, 16]
    threads = torch.get_num_threads()
    definition = budget.widths(teacher, None)[4]
    seconds, ram = budget._segment(teacher.reopen, definition, volume, threads)
    assert seconds > 0 and 0.1 < ram < 64


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--max_seconds", "1"], "nothing to measure"),
        (["--max_ram", "1", "--reduction_factor", "2", "--shape", "9", "9", "9"], "two ways to choose the width"),
        (["--max_seconds", "nan"], "expected a number above 0, found 'nan'"),
    ],
)
def test_options_that_contradict_are_one_line(options: list[str], text: str, tmp_path: Path, capsys: Any) -> None:
    assert dcd(["distil", "zoo", "--output", str(tmp_path / "s"), *options]) == 1
    assert text in capsys.readouterr().err
