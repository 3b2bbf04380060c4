"""What a full training reads, keeps in memory and takes, on 1, 8 and 64 processes: docs/results/cost.md.

One phantom of full size per task gives what a case takes on disk, in memory and to load; the rest is arithmetic.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from dcd_ext.bundles.tools import open_bundle
from dcd_ext.data.cache import cached_bytes
from dcd_ext.data.cases import load_cases
from dcd_ext.errors import show_plainly
from dcd_ext.tables import Table, to_markdown
from dcd_ext.versions import environment
from scripts.benchmark import ROOT, prepared_phantoms, write_page

# full-size scans of the challenges; ISLES' grid is that of its FLAIR
SHAPES = {"brats24": (240, 240, 155), "isles22": (112, 112, 73)}


def constants(task: str, work: Path) -> dict[str, float]:
    """Bytes on disk and in a cache, and seconds to load, of one case; and what the config says."""
    prepared = prepared_phantoms(task, work, 2, SHAPES[task], folds=2)
    bundle = ROOT / "bundles" / f"{task}_segmentation_student"
    parser = open_bundle(str(bundle), [str(bundle / "configs" / "train.json")], dataset_dir=str(prepared))
    case, transform = load_cases(str(prepared), "training", 0)[0], parser.get_parsed_content("validate::preprocessing")
    images = case["image"] if isinstance(case["image"], list) else [case["image"]]
    start = time.process_time()
    item = transform(dict(case))
    seconds = time.process_time() - start
    options = {key: parser.get_parsed_content(key) for key in ("iterations_per_epoch", "batch_size", "max_epochs")}
    return {
        "disk": sum(Path(file).stat().st_size for file in [*images, case["label"]]),
        "cached": cached_bytes(item),
        "load_seconds": seconds,
        **options,
    }


def constants_table(found: dict[str, dict[str, float]]) -> Table:
    """A row per task."""
    header = ["task", "case on disk, MiB", "case in the cache, MiB", "to load it, CPU s", "steps per epoch", "batch"]
    sizes = (("disk", 2**20, ".1f"), ("cached", 2**20, ".1f"), ("load_seconds", 1, ".2f"))
    plain = (("iterations_per_epoch", 1, "g"), ("batch_size", 1, "g"))
    rows = [[task, *(f"{c[key] / unit:{form}}" for key, unit, form in (*sizes, *plain))] for task, c in found.items()]
    return Table("", header, rows, "")


def prediction_table(found: dict[str, dict[str, float]], options: argparse.Namespace) -> Table:
    """A row per task and number of processes; steps per epoch are the shipped ones, whatever that number."""
    header = ["task", "processes", "samples per epoch", "passes over the training part", "hours", "read per epoch, GiB"]
    header += ["reading, MiB/s", "full cache per node, GiB", "loading cores per process"]
    rows = []
    for task, c in found.items():
        for processes in (1, 8, 64):
            samples = c["iterations_per_epoch"] * c["batch_size"] * processes
            hours = c["max_epochs"] * c["iterations_per_epoch"] * options.step_seconds / 3600
            reading = processes * c["batch_size"] * c["disk"] / 2**20 / options.step_seconds
            cache = min(processes, options.per_node) * options.cases * c["cached"] / 2**30
            loaders = c["batch_size"] * c["load_seconds"] / options.step_seconds
            start = [task, str(processes), f"{samples:g}", f"{samples / (0.8 * options.cases):.2f}"]
            values = [hours, samples * c["disk"] / 2**30, reading, cache]
            rows.append([*start, *(f"{value:.4g}" for value in values), f"{loaders:.1f}"])
    steps = f"{options.step_seconds:g} s per step (assumed, of a GPU), {options.per_node} processes per node"
    return Table("", header, rows, f"{options.cases} cases, {steps}; reading and loading without a cache.")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1350)
    parser.add_argument("--step_seconds", type=float, default=0.5, help="of your GPU: python -m scripts.bench_step")
    parser.add_argument("--per_node", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of the page (default runs)")
    parser.add_argument("--work", type=Path, default=Path("runs/cost"), help="folder of the phantoms")
    options = parser.parse_args(argv)
    found: dict[str, Any] = {task: constants(task, options.work) for task in SHAPES}
    tables = [to_markdown(constants_table(found)), to_markdown(prediction_table(found, options))]
    command = f"python -m scripts.cost_model --cases {options.cases} --step_seconds {options.step_seconds:g}"
    content = {"constants": found, "environment": environment("cpu")}
    write_page(options.output / "cost", "What a full training costs", tables, command, content)
    print("\n\n".join(tables))


if __name__ == "__main__":
    show_plainly()
    main()
