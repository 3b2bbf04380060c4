"""How training time and memory grow with patch, channels, cases and processes, as ratios: docs/results/growth.md.

Trains the student of a task, with its own commands, on phantoms: one quantity at a time is doubled and doubled
again. Seconds are those of the second of two epochs; memory is the largest resident size of one process.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcd_ext.errors import UserError, show_plainly
from dcd_ext.tables import Table, to_markdown
from dcd_ext.versions import environment
from scripts.benchmark import ROOT, prepared_phantoms, write_page

ITERATIONS, CASES = 4, 8
# the strides of brats24 leave two voxels of each side
PATCH = (32, 64, 64)


@dataclass
class Setting:
    """One training: what was changed, and by how much."""

    quantity: str
    factor: int
    options: dict[str, Any] = field(default_factory=dict)
    cases: int = CASES
    processes: int = 0

    def command(self, bundle: Path, dataset_dir: Path, folder: Path) -> list[str]:
        """``python -m monai.bundle``, under torchrun if there are processes."""
        files = [bundle / "configs" / f"{n}.json" for n in ("train", *(["multi_gpu_train"] if self.processes else []))]
        options = {
            "bundle_root": bundle,
            "config_file": str([str(file) for file in files]),
            "dataset_dir": dataset_dir,
            "output_dir": folder,
            "ckpt_dir": folder / "models",
            "max_epochs": 2,
            "iterations_per_epoch": ITERATIONS,
            "val_interval": 1,
            "num_workers": 0,
            "batch_size": 1,
            "validate::inferer::overlap": 0.0,
            "patch_size": list(PATCH),
            "device": "cpu",
            **self.options,
        }
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        start = [sys.executable, *(torchrun if self.processes else []), "-m", "monai.bundle", "run", "training"]
        return [*start, *(part for key, value in options.items() for part in (f"--{key}", str(value)))]


def settings() -> list[Setting]:
    """Once, twice and four times of each."""
    x, y, z = PATCH
    patches = {1: [x, y, z], 2: [2 * x, y, z], 4: [2 * x, 2 * y, z]}
    return [
        *(Setting("patch (voxels)", n, {"patch_size": patch}) for n, patch in patches.items()),
        *(Setting("channels", n, {"reduction_factor": 8 // n}) for n in (1, 2, 4)),
        *(Setting("cases", n, cases=n * CASES) for n in (1, 2, 4)),
        *(Setting("processes", n, cases=2 * CASES, processes=n) for n in (1, 2, 4)),
    ]


def measure(task: str, work: Path, setting: Setting) -> dict[str, Any]:
    """Seconds of an epoch's steps and the peak memory of the largest process."""
    folder = work / f"{setting.quantity.split()[0]}{setting.factor}"
    folder.mkdir(parents=True, exist_ok=True)
    bundle = ROOT / "bundles" / f"{task}_segmentation_student"
    command = setting.command(bundle, prepared_phantoms(task, work, setting.cases, (64, 128, 64), folds=5), folder)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        _, status, usage = os.wait4(process.pid, 0)  # the children's largest, not their sum
    if status:
        raise UserError("the training failed", folder / "log", next_step="read this log")
    epoch = json.loads((folder / "training.json").read_text("utf-8"))["epochs"][1]
    size = {"seconds": epoch["seconds"], "cpu_seconds": epoch["cpu_seconds"], "peak_gib": usage.ru_maxrss / 2**20}
    samples = ITERATIONS * max(setting.processes, 1)
    return {"quantity": setting.quantity, "factor": setting.factor, **size, "samples_per_s": samples / epoch["seconds"]}


# why the smallest patches are not faster: seen in a profile, not by this script
FLOOR = """Times have a floor where the batch is one: in float32 on a CPU, PyTorch sends convolutions of a batch of one
whose batch × channels × depth × height is at most 20,480 to its own `slow_conv3d` instead of oneDNN, so that small
patches are slower with a batch of one than with two (one thread, brats24 student, 32×32×32, channels last, forward and
backward: 0.641 s with a batch of one, 0.288 s with two)."""


def growth_table(results: list[dict[str, Any]]) -> Table:
    """A row per setting, as ratios to the quantity's first."""
    first = {r["quantity"]: r for r in reversed(results)}
    keys = ("seconds", "cpu_seconds", "peak_gib", "samples_per_s")
    header = ["quantity", "times", "epoch, s", "time", "CPU time", "peak memory", "samples per second"]
    rows = [
        [r["quantity"], str(r["factor"]), f"{r['seconds']:.1f}"]
        + [f"{r[key] / first[r['quantity']][key]:.2f}" for key in keys]
        for r in results
    ]
    patch = "×".join(map(str, PATCH))
    note = f"Patch {patch}, {ITERATIONS} steps of batch 1 and {CASES} cases where nothing else is said"
    return Table("", header, rows, f"{note}; validation included. One thread per process.")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="brats24", choices=("brats24", "isles22"))
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the page (default runs)")
    parser.add_argument("--work", type=Path, default=Path("runs/growth"), help="folder of data and trainings")
    options = parser.parse_args(argv)
    results = []
    for setting in settings():
        results.append(measure(options.task, options.work, setting))
        print(results[-1], flush=True)
    command = f"python -m scripts.bench_growth --task {options.task}"
    content = {"task": options.task, "results": results, "environment": environment("cpu")}
    parts = [to_markdown(growth_table(results)), FLOOR]
    write_page(options.output / "growth", f"{options.task}: how training grows", parts, command, content)
    print(parts[0])


if __name__ == "__main__":
    show_plainly()
    main()
