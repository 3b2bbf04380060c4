"""Comparing runs to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents


class Interrupted(Exception):
    """Stands for a killed process."""


def losses_of(workflow: ConfigWorkflow) -> list[float]:
    """A list that fills with the loss of every step, to the last bit."""
    trainer = workflow.parser.get_parsed_content("train::trainer")
    values: list[float] = []
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED, lambda e: values.append(float(e.state.output["loss"].detach()))
    )
    return values


def run_until(workflow: ConfigWorkflow, epoch: int) -> None:
    """Run, and be killed when ``epoch`` (from 1) starts."""

    def interrupt() -> None:
        raise Interrupted

    trainer = workflow.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.EPOCH_STARTED(once=epoch), interrupt)
    with pytest.raises(RuntimeError) as error:
        workflow.run()
    assert isinstance(error.value.__cause__, Interrupted)


def assert_same_files(one: Path, two: Path, *files: str) -> None:
    """Checkpoints of two folders hold the same, to the last bit."""
    for file in files:
        contents = [torch.load(folder / file, weights_only=True) for folder in (one, two)]
        assert_equal(*contents, file)


def assert_equal(one: Any, two: Any, where: str) -> None:
    """Nested containers of tensors and numbers, equal to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_equal(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_equal(a, b, f"{where}/{i}")
    else:
        assert one == two, where
