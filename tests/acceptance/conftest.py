"""Bundles as their users have them: folders with weights, used through ``python -m monai.bundle`` alone.

Not all nine: a teacher's configs are the student's but for the width, a task's two students have the same inference and
evaluation, and their trainings differ by the distillation; tests/bundles/test_generated.py proves it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.conftest import make_small
from tests.conftest import SHORT, TASKS, read_json
from tests.processes import fork_module, start_module

DISTILLED = [f"{task}_segmentation_student_dcd" for task in TASKS]
# whatever asks the internet fails at once
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


@dataclass
class Bundle:
    """A bundle in a folder of its own, its teacher beside it, and prepared data of its task."""

    root: Path
    data: Path

    @property
    def name(self) -> str:
        """Its name in the collection."""
        return self.root.name

    def config(self, name: str) -> dict[str, Any]:
        """One of its configs."""
        return read_json(self.root / "configs" / f"{name}.json")

    def monai(
        self, *arguments: Any, cwd: Path | None = None, processes: int = 0, code: int = 0, fresh: bool = False
    ) -> str:
        """``python -m monai.bundle`` or, with processes, ``torchrun -m monai.bundle``, in the bundle's folder.

        Args:
            arguments: what follows.
            cwd: another folder to run in.
            processes: how many; 0 starts the one without torchrun.
            code: the expected exit code.
            fresh: start Python anew, for what MONAI reads while it is imported.

        Returns:
            What it printed.
        """
        environment, folder = {"OMP_NUM_THREADS": "1", **OFFLINE}, cwd or self.root
        torchrun = ["torch.distributed.run", "--standalone", "--nnodes=1", f"--nproc_per_node={processes}", "-m"]
        if processes:
            result = start_module(torchrun[0], [*torchrun[1:], "monai.bundle", *arguments], folder, environment)
        else:
            start = start_module if fresh else fork_module
            result = start("monai.bundle", arguments, folder, environment)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr


def config_files(*names: str | Path, root: Path | None = None) -> list[str]:
    """``--config_file`` of some configs, relative to the bundle unless its root is given, and of other files."""
    files = [str(name if isinstance(name, Path) else (root or Path()) / "configs" / f"{name}.json") for name in names]
    return ["--config_file", files[0] if len(files) == 1 else str(files)]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, prepared: Callable[[str], Path]) -> Callable[[str], Bundle]:
    """Small bundles with random weights by name, made once, in one folder. Trainings are short."""
    folder = tmp_path_factory.mktemp("bundles")

    @functools.cache
    def make(name: str) -> Bundle:
        task, _, role = name.partition("_segmentation_")
        if role == "student_dcd":
            make(f"{task}_segmentation_teacher")
        return Bundle(make_small(name, folder, short=SHORT), prepared(task))

    return make


@pytest.fixture(scope="module", params=["brats24_segmentation_student_dcd", "hippocampus_segmentation_student"])
def bundle(request: pytest.FixtureRequest, bundles: Callable[[str], Bundle]) -> Bundle:
    """Regions in several images, and classes in one; with and without a teacher.

    Not to be changed, but for its ``models`` and ``eval``.
    """
    return bundles(request.param)
