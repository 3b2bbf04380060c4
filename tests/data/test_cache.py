"""The cache takes what fits: sizes are measured on transformed cases, and counted against a limit the test sets."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite import distributed as idist
from monai.transforms import Compose, LoadImaged, Spacingd

from dcd_ext.data import cache as cache_module
from dcd_ext.data import choose_cache_rate
from dcd_ext.io import sha256

SIDE = 6
# image and label, float32, twice as many voxels along each axis after resampling from 2 mm to 1 mm
CASE_BYTES = 2 * 4 * (2 * SIDE - 1) ** 3
LOAD = LoadImaged(["image", "label"], image_only=True, ensure_channel_first=True)
HALVE = Compose([LOAD, Spacingd(["image", "label"], (1, 1, 1), mode="nearest")])


def _cases(folder: Path, *sides: int) -> list[dict[str, str]]:
    cases = []
    for number, side in enumerate(sides):
        case = {}
        for key in ("image", "label"):
            case[key] = str(folder / f"{key}{number}.nii")
            nib.save(nib.Nifti1Image(np.zeros((side,) * 3, np.uint8), np.diag([2.0, 2, 2, 1])), case[key])
        cases.append(case)
    return cases


def _write_check(folder: Path, sides: tuple[int, ...]) -> None:
    (folder / "datalist.json").write_text(json.dumps({"training": [{} for _ in sides]}))
    report = {
        "datalist_sha256": sha256(folder / "datalist.json"),
        "errors": 0,
        "cache_bytes": sum(2 * 4 * side**3 for side in sides),
    }
    (folder / "check.json").write_text(json.dumps(report))


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch):
    """Set the memory this process may use, in bytes."""
    return lambda room: monkeypatch.setattr(cache_module, "available_memory", lambda: int(room))


@pytest.mark.parametrize(
    ("room_in_cases", "share", "rate"),
    [(100, 0.8, 1.0), (10 / 0.8 + 0.01, 0.8, 1.0), (10, 0.8, 0.8), (10, 0.5, 0.5), (1.234, 1.0, 0.12), (0, 0.8, 0.0)],
)
def test_rate_is_the_part_that_fits(room_in_cases: float, share: float, rate: float, limit, tmp_path: Path) -> None:
    limit(room_in_cases * CASE_BYTES + 1)
    assert choose_cache_rate(_cases(tmp_path, *[SIDE] * 10), HALVE, tmp_path, share) == rate


def test_log_says_what_was_chosen_and_why(limit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limit(2**30)
    with caplog.at_level(logging.INFO, "dcd_ext"):
        choose_cache_rate(_cases(tmp_path, 65, 65), LOAD, tmp_path, 0.002)
    needed = 2 * 2 * 4 * 65**3
    rate = int(100 * 0.002 * 2**30 / needed) / 100
    assert caplog.messages == [
        f"cache_rate {rate:.2f}: a full cache of 2 cases needs 0.00 GiB (measured on 2); 0.2 % of the "
        "1.00 GiB available may be used"
    ]


def test_one_large_case_in_the_sample_does_no_harm_after_a_check(limit, tmp_path: Path) -> None:
    sides = (8, 8, 8, 8, 32, 8, 8, 8, 8)  # the sample is the first, the middle and the last
    cases, needed = _cases(tmp_path, *sides), sum(2 * 4 * side**3 for side in sides)
    limit(needed / 0.8 + 10)
    guessed = choose_cache_rate(cases, LOAD, tmp_path)
    _write_check(tmp_path, sides)
    assert guessed < 0.5 and choose_cache_rate(cases, LOAD, tmp_path) == 1.0
    limit(needed / 0.8 - 10)
    assert choose_cache_rate(cases, LOAD, tmp_path) == 0.99


@pytest.mark.parametrize("spoil", ["another list", "not JSON", "no bytes", "no list"])
def test_a_check_that_does_not_belong_is_left_aside(spoil: str, limit, tmp_path: Path) -> None:
    sides = (8, 8, 8, 8, 32, 8, 8, 8, 8)
    cases = _cases(tmp_path, *sides)
    limit(sum(2 * 4 * side**3 for side in sides) / 0.8 + 10)
    _write_check(tmp_path, sides)
    if spoil == "another list":
        (tmp_path / "datalist.json").write_text('{"training": [{}]}')
    elif spoil == "no list":
        (tmp_path / "datalist.json").unlink()
    else:
        (tmp_path / "check.json").write_text({"not JSON": "{", "no bytes": '{"datalist_sha256": ""}'}[spoil])
    assert choose_cache_rate(cases, LOAD, tmp_path) < 0.5


def test_what_is_counted_is_what_the_cache_keeps(tmp_path: Path) -> None:
    """Tensors and arrays; a crop counts as its own voxels, because CacheDataset makes it contiguous."""
    crop = torch.zeros(40, 40)[:10, :10]
    assert cache_module.cached_bytes({"image": crop, "box": np.zeros(3), "case": "a"}) == 4 * 100 + 24


def test_processes_on_one_machine_share_its_memory(limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(100 * CASE_BYTES)
    cases = _cases(tmp_path, *[SIDE] * 10)

    def processes(per_machine: int) -> None:
        # the other process sees less
        monkeypatch.setattr(idist, "all_gather", lambda own: [own, 20 * CASE_BYTES])
        monkeypatch.setattr(idist, "get_nproc_per_node", lambda: per_machine)

    processes(per_machine=2)
    assert choose_cache_rate(cases, HALVE, tmp_path, 0.8) == 0.8
    processes(per_machine=1)  # two machines
    assert choose_cache_rate(cases, HALVE, tmp_path, 0.4) == 0.8


def test_nothing_to_cache() -> None:
    assert choose_cache_rate([], LOAD) == 0.0
