"""Shipped training configs cache what fits the memory, and obey a rate given on the command line."""

from __future__ import annotations

import logging

import pytest

from dcd_ext.data import cache as cache_module
from dcd_ext.inference.cohort import CohortDataset
from tests.conftest import make_workflow, read_json

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")


def _datasets(prepared, task: str, **override):
    folder = prepared(task)
    workflow = make_workflow(
        f"{task}_segmentation_student", "train", dataset_dir=str(folder), num_workers=0, **override
    )
    return [workflow.parser.get_parsed_content(f"{part}::dataset") for part in ("train", "validate")]


def test_a_memory_limit_halves_the_cache_and_the_log_says_why(prepared, monkeypatch, caplog) -> None:
    folder = prepared("hippocampus")
    cases = len(read_json(folder / "datalist.json")["training"])
    full = _datasets(prepared, "hippocampus")
    assert [d.cache_num for d in full] == [len(d.data) for d in full] and sum(map(len, full)) == cases
    one = 2 * 4 * 24 * 30 * 24  # image and label, float32, already at 1 mm
    monkeypatch.setattr(cache_module, "available_memory", lambda: int(one * cases / 0.5 * 0.6) + 1)
    with caplog.at_level(logging.INFO, "dcd_ext"):
        half = _datasets(prepared, "hippocampus")
    assert [d.cache_num for d in half] == [int(0.6 * len(d.data)) for d in half]
    assert any(
        message.startswith(f"cache_rate 0.60: a full cache of {cases} cases needs") for message in caplog.messages
    )


def test_a_rate_on_the_command_line_wins(prepared, monkeypatch) -> None:
    def measured() -> int:
        raise AssertionError("measured although the user said what to do")

    monkeypatch.setattr(cache_module, "available_memory", measured)
    train, _ = _datasets(prepared, "hippocampus", cache_rate=0.5)
    assert train.cache_num == len(train.data) // 2


def test_evaluation_caches_nothing(prepared, monkeypatch) -> None:
    monkeypatch.delattr(cache_module, "available_memory")
    workflow = make_workflow(
        "hippocampus_segmentation_student", "train", "evaluate", dataset_dir=str(prepared("hippocampus"))
    )
    assert type(workflow.parser.get_parsed_content("validate::dataset")) is CohortDataset
