"""Small phantom data sets, and the scripts as functions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dcd_ext.commands.main import main as dcd
from dcd_ext.data.phantoms import PhantomSpec, write_phantoms

MESSAGE = re.compile(r"^[^\n]+ – [^\n]+( – (expected [^\n]+, )?found [^\n]+)? – [^\n]+$")


class Outcome(NamedTuple):
    """Exit code and streams of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``dcd <name>`` in this process, which spares each test the start of an interpreter."""

    def run(name: str, *arguments: object) -> Outcome:
        capsys.readouterr()
        code = dcd([name, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        if code and name != "check":
            assert MESSAGE.match(err.splitlines()[-1]), err
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="session")
def _phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("phantoms")
    shapes = {"brats24": (32, 32, 28), "isles22": (28, 30, 26), "msd": (26, 30, 24)}
    for layout, shape in shapes.items():
        spec = PhantomSpec(root / layout, layout, cases=6, test_cases=1, shape=shape, flair_spacing=(1.5, 1.5, 6.0))
        write_phantoms(spec)
    return {layout: root / layout for layout in shapes}


@pytest.fixture
def phantoms(_phantoms: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a phantom set (brats24, isles22 or msd; 6 labelled cases, 1 without) into this test's folder."""

    def copy(layout: str, name: str = "source") -> Path:
        return Path(shutil.copytree(_phantoms[layout], tmp_path / name))

    return copy
