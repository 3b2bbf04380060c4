"""Real servers and apps in environments of their own: ``./runtests.sh --integration`` installs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bundles.conftest import make_small
from tests.conftest import ROOT
from tests.dicom_series import write_study

REQUIRED = os.environ.get("DCD_INTEGRATION") == "1"
# of tests that need minutes and no environment of their own
slow_alone = pytest.mark.skipif(not REQUIRED, reason="minutes long: ./runtests.sh --integration")
# what the server and the app read lies in files, so a toy network has to be written there
SHORT = {"iterations_per_epoch": 2, "num_workers": 0}


def tool_environment(name: str) -> Path:
    """Folder of an installed environment (``label``, ``deploy``, ``nnunet``); skips the test where there is none."""
    folder = Path(os.environ.get(f"DCD_{name.upper()}_VENV", ROOT / f".venv-{name}"))
    if not (folder / ".installed").is_file():
        script = "nnunet.sh" if name == "nnunet" else f"monai_{name}.sh"
        reason = f"{folder.name} is not installed: ./runtests.sh --integration, or scripts/{script} --setup"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real MR study of four series; where it is not at hand, one written with ITK, of the same descriptions."""
    shared = Path(os.environ.get("DCD_DATA_DIR", ROOT.parent / "shared" / "data"))
    if (shared / "dicom_mr_study").is_dir():
        return (shared / "dicom_mr_study").resolve()
    return write_study(tmp_path_factory.mktemp("dicom") / "study")


def toy_bundle(name: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A small copy of a shipped bundle with seeded random weights; ``settings`` go into both configs."""
    return make_small(name, folder, seed, SHORT, **settings)


def bundle_inference(bundle: Path, dataset_dir: Path, output: Path) -> list[Path]:
    """Label maps of the bundle's own ``run inference``, the judge of every server.

    Args:
        bundle: the bundle.
        dataset_dir: folder with ``datalist.json``.
        output: receives the label maps.
    """
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--bundle_root", str(bundle)]
    command += ["--config_file", str(bundle / "configs" / "inference.json"), "--dataset_dir", str(dataset_dir)]
    call([*command, "--output_dir", str(output)])
    return sorted(output.rglob("*_seg.nii.gz"))


def call(
    command: Sequence[str], code: int = 0, minutes: int = 15, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command from another directory and check its exit code."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, env=variables, timeout=60 * minutes)
    assert result.returncode == code, result.stdout + result.stderr
    return result
