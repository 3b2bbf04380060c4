"""Small data in the published layouts, a way to run shipped configs in this process, and toy networks."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from torch import nn

from dcd_ext.commands.main import main as dcd

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ROOT / "bundles"
TASKS = ("brats24", "hippocampus", "isles22")
ROLES = ("teacher", "student", "student_dcd")
# a little larger than a patch: few windows, and still more than one
PHANTOMS = {
    "brats24": ["--shape", "40", "40", "36"],
    "isles22": ["--shape", "26", "26", "26", "--flair_spacing", "1.5", "1.5", "6"],
    "hippocampus": ["--shape", "24", "30", "24"],
}
LAYOUTS = {"brats24": "brats24", "hippocampus": "msd", "isles22": "isles22"}

# every network small enough for a test, the rest as shipped
SMALL = {
    "brats24": {"features": [8] * 6, "n_blocks": [1] * 6, "patch_size": [32, 32, 32]},
    "isles22": {"features": [8] * 5, "n_blocks": [1] * 5, "patch_size": [32, 32, 32]},
    "hippocampus": {"features": [8] * 4, "n_blocks": [1] * 4, "patch_size": [16, 24, 16]},
}
# 32 voxels allow four halvings before an instance norm has a single voxel left
SMALL["isles22"]["strides"] = [[1, 1, 1]] + [[2, 2, 2]] * 4
SHORT = {"max_epochs": 2, "iterations_per_epoch": 2, "val_interval": 1, "num_workers": 0}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Processes send reports as UTF-8, which has no form for half a surrogate pair in a log, a name or a failure."""
    report = yield
    report.sections = [(name, _encodable(content)) for name, content in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        report.longrepr = _encodable(str(report.longrepr))
    return report


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bundle configs set the excepthook, and MONAI's determinism switches global flags: put them back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    factory = logging.getLogRecordFactory()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # commands set it, too
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.setLogRecordFactory(factory)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Prepared synthetic data of a task: a folder with ``datalist.json``, made once per test session."""
    made: dict[str, Path] = {}

    def prepare(task: str) -> Path:
        if task not in made:
            root = tmp_path_factory.mktemp(task)
            source, output = root / "source data", root / "prepared"
            arguments = ["--output", str(source), "--cases", "6", "--test_cases", "1", "--layout", LAYOUTS[task]]
            assert dcd(["phantoms", *arguments, *PHANTOMS[task], "--jobs", "1"]) == 0
            assert dcd(["prepare", task, "--source", str(source), "--output", str(output), "--jobs", "1"]) == 0
            made[task] = output
        return made[task]

    return prepare


@pytest.fixture
def data_dir() -> Path:
    """Real cases in the published layouts: $DCD_DATA_DIR, or shared/data beside the project."""
    folder = Path(os.environ.get("DCD_DATA_DIR", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: set DCD_DATA_DIR (looked in {folder})")
    return folder


def bundle_config(name: str, *configs: str) -> dict[str, Any]:
    """``bundle_root`` and ``config_file`` of a shipped bundle."""
    folder = BUNDLES / name
    return {"bundle_root": str(folder), "config_file": [str(folder / "configs" / f"{c}.json") for c in configs]}


def make_workflow(
    name: str, *configs: str, kind: str = "train", run_id: str = "run", **override: Any
) -> ConfigWorkflow:
    """A shipped config as an initialised workflow, the way ``python -m monai.bundle run`` makes it."""
    where = bundle_config(name, *configs)
    workflow = ConfigWorkflow(
        config_file=where["config_file"],
        workflow_type=kind,
        logging_file=False,
        run_id=run_id,
        bundle_root=where["bundle_root"],
        **override,
    )
    workflow.initialize()
    return workflow


def read_json(path: Path) -> Any:
    """Parsed JSON file."""
    return json.loads(path.read_text("utf-8"))


def clip_gradients(max_norm: float = 12.0) -> Callable[..., None]:
    """The optimizer's pre-hook of the shipped configs."""
    config = read_json(BUNDLES / "hippocampus_segmentation_student" / "configs" / "train.json")["train"]
    parser = ConfigParser({"train": {"max_grad_norm": max_norm, "clip_gradients": config["clip_gradients"]}})
    return parser.get_parsed_content("train::clip_gradients")


class ToyEncoder(nn.Module):
    """Two stages; the second halves the grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = nn.Conv3d(1, channels, 3, padding=1)
        second = nn.Conv3d(channels, 2 * channels, 3, stride=2, padding=1)
        self.stages = nn.ModuleList([nn.Sequential(first, nn.LeakyReLU()), nn.Sequential(second, nn.LeakyReLU())])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stages[0](x)
        return [x, self.stages[1](x)]


class ToyNet(nn.Module):
    """Encoder and head, so that taps have the paths of the real networks."""

    def __init__(self, channels: int = 2, classes: int = 2) -> None:
        super().__init__()
        self.encoder = ToyEncoder(channels)
        self.head = nn.Conv3d(channels, classes, 1)
        self.head_calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.encoder(x)
        self.head_calls += 1
        return self.head(features[0])


@pytest.fixture
def make_trainer():
    """Build a ``SupervisedTrainer`` on four random cases."""

    def make(network: torch.nn.Module | None = None, handlers: Any = (), parameters: Any = None, **kwargs: Any):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(4, 1, 8, 8, 8, generator=generator)
        data = [{"image": x, "label": (x > 0.7).float()} for x in images]
        network = network or ToyNet()
        optimizer = torch.optim.SGD(parameters or network.parameters(), lr=kwargs.pop("lr", 0.01))
        max_norm = kwargs.pop("max_norm", None)
        if max_norm is not None:
            optimizer.register_step_pre_hook(clip_gradients(max_norm))
        return SupervisedTrainer(
            device="cpu",
            max_epochs=kwargs.pop("max_epochs", 2),
            train_data_loader=torch.utils.data.DataLoader(data, batch_size=2),
            network=network,
            loss_function=kwargs.pop("loss_function", DiceCELoss(to_onehot_y=True, softmax=True)),
            optimizer=optimizer,
            train_handlers=list(handlers),
            decollate=kwargs.pop("decollate", False),
            **kwargs,
        )

    return make
