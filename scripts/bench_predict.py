"""Whole commands on a CPU: seconds, phases and memory of bundles by each backend, and of other programs.

scripts/bench_predict.sh makes the tables of docs/predict.md with it. Each measurement is a process of its own, from
the shell's start to its end, of a temporary copy of the bundle; one without models/model.pt gets random weights: they
cost the same time. A backend that this processor lacks is left out. With --output, a row that is in
predict_<name>.json already is not measured again.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from dcd_ext.commands.common import positive
from dcd_ext.data.nifti import voxels
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_json
from dcd_ext.parallel import cores
from dcd_ext.predict.backends import BACKENDS, has_bf16, prepare
from dcd_ext.predict.pipelines import PHASES
from dcd_ext.tables import Table, to_markdown, to_text
from dcd_ext.versions import environment
from scripts.bench_predict_inputs import staged
from scripts.benchmark import insert

_HEADER = ["network", "run by", "command s", "CPU s", "s/case", *PHASES, "peak GiB", "Dice", "busy core"]


class Contender:
    """A command line that writes label maps of the same images."""

    def __init__(self, network: str, backend: str, command: list[str], folder: Path) -> None:
        self.network, self.backend = network, backend
        self._command, self.folder = command, folder

    def run(self) -> dict[str, float]:
        """Once, into an empty folder: seconds, processor seconds, and memory at most, of all its processes."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        log, started = self.folder / "log", time.perf_counter()
        before = os.times()
        with open(log, "wb") as file, subprocess.Popen(self._command, stdout=file, stderr=file) as process:
            peak = _watch(process)
        seconds, after = time.perf_counter() - started, os.times()
        if process.returncode:
            last = (log.read_text("utf-8", "replace").strip().splitlines() or [""])[-1]
            raise UserError("command failed", shlex.join(self._command), "exit code 0", last, "run it by hand")
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        return {"seconds": seconds, "processor_seconds": processor, "peak_gib": peak}

    def phases(self) -> dict[str, float]:
        """Mean seconds per case of each phase in the last run; empty for another program."""
        summary = self.folder / "summary.json"
        if not summary.is_file():
            return {}
        cases = json.loads(summary.read_text("utf-8"))["cases"]
        return {name: statistics.mean(case["seconds"][name] for case in cases) for name in PHASES}


def _watch(process: subprocess.Popen) -> float:
    """GiB at most: of a process and its children together, each page counted once; or of one alone at its peak."""
    peak, family = 0.0, psutil.Process(process.pid)
    while process.poll() is None:
        total = 0.0
        with suppress(psutil.Error):
            for member in [family, *family.children(recursive=True)]:
                with suppress(psutil.Error, OSError):
                    total += member.memory_full_info().pss / 2**30
                    peak = max(peak, _peak_gib(member.pid))
        peak = max(peak, total)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    return peak


def _peak_gib(pid: int) -> float:
    """What Linux remembers; the pages of the program that started it are not among them."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text("ascii", "replace")) if status.is_file() else None
    return int(found[1]) / 2**20 if found else 0.0


@contextmanager
def busy_core() -> Iterator[None]:
    """Another job on the first core."""
    job = psutil.Popen([sys.executable, "-c", "while True: pass"])
    with suppress(AttributeError):  # macOS lets no program choose its core
        job.cpu_affinity([min(job.cpu_affinity())])
    try:
        yield
    finally:
        job.kill()
        job.wait()


def contenders(args: argparse.Namespace, folder: Path, measured: set[tuple[str, str]]) -> Iterator[Contender]:
    """Each bundle with each backend there is, then the other programs; those that are ``measured`` are left out."""
    images = [str(path) for path in args.images]
    usable = [backend for backend in args.backends if backend != "openvino-bf16" or has_bf16()]
    for root in args.bundles:
        for backend in usable:
            if (root.name, backend) not in measured:
                bundle, output = staged(root, folder / "bundles"), folder / root.name / backend
                if backend != "eager":
                    prepare(bundle, backend)
                command = [sys.executable, "-m", "dcd_ext", "predict", str(bundle), *images]
                command += ["--output", str(output), "--backend", backend, "--threads", str(args.threads)]
                yield Contender(root.name, backend, command, output)
    for text in args.also:
        name, _, line = text.partition("=")
        network, _, program = name.rpartition(":")
        output = folder / "others" / program
        words = [word.format(input=images[0], output=output) for word in shlex.split(line)]
        if (network, program) not in measured:
            yield Contender(network, program, words, output)


def measure(contender: Contender, args: argparse.Namespace) -> dict[str, Any]:
    """A row: all runs on a machine that does nothing else, then one beside another job."""
    runs = [contender.run() for _ in range(args.repeats)]
    row: dict[str, Any] = {"network": contender.network, "backend": contender.backend}
    row |= {key: [run[key] for run in runs] for key in runs[0]}
    row["phases"] = contender.phases()
    row["dice"] = mean_dice(contender.folder, args.truth) if args.truth else None
    if args.busy:
        with busy_core():
            row["busy_seconds"] = contender.run()["seconds"]
    return row


def mean_dice(folder: Path, truth: Path) -> float:
    """Mean over cases and their classes, of the label maps that are named by a label of ``truth``."""
    maps = {re.sub(r"(_0000)?(_seg)?(?=\.nii)", "", path.name): path for path in folder.rglob("*.nii.gz")}
    scores = []
    for label in sorted(truth.glob("*.nii.gz")):
        found, expected = map(voxels, (maps[label.name], label))
        for value in np.unique(expected[expected > 0]):
            p, t = found == value, expected == value
            scores.append(2 * (p & t).sum() / (p.sum() + t.sum()))
    return float(np.mean(scores))


def table(result: dict[str, Any]) -> Table:
    """One row per contender."""
    rows = []
    for row in result["rows"]:
        seconds, phases = row["seconds"], row["phases"]
        middle, dice, busy = statistics.median(seconds), row["dice"], row.get("busy_seconds")
        spread = f" ({min(seconds):.1f}–{max(seconds):.1f})" if len(seconds) > 1 else ""
        cells = [f"{middle:.1f}{spread}", f"{statistics.median(row['processor_seconds']):.1f}"]
        cells += [f"{middle / result['cases']:.2f}", *(f"{phases[name]:.3f}" if phases else "–" for name in PHASES)]
        cells += [f"{max(row['peak_gib']):.2f}", "–" if dice is None else f"{dice:.4f}"]
        rows.append([row["network"], row["backend"], *cells, f"{busy / middle:.2f}×" if busy else "–"])
    note = (
        f"{result['cases']} case(s); «command s»: from the shell's start to its end, median (minimum–maximum), "
        f"{result['environment']['threads']} thread(s); phases: mean seconds per case, reading and writing overlap "
        "with the network of another case; «peak»: of all processes together; «busy core»: how many times longer the "
        "command takes beside another job on one core."
    )
    return Table("", _HEADER, rows, note)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="or a folder of dcd export standalone")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="as INPUT of dcd predict")
    parser.add_argument("--cases", type=positive, required=True, help="how many cases these are")
    usable = [name for name in BACKENDS if name != "auto"]
    parser.add_argument("--backends", nargs="+", choices=usable, default=["eager", "openvino", "openvino-bf16"])
    also = "others, with {input} and {output} in the command"
    parser.add_argument("--also", nargs="*", default=[], metavar="[NETWORK:]NAME=COMMAND", help=also)
    parser.add_argument("--truth", type=Path, metavar="DIR", help="labels <case>.nii.gz, for the column Dice")
    parser.add_argument("--busy", action="store_true", help="also once beside a job on one core")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=cores())
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the rows in predict_<name>.json there")
    parser.add_argument("--name", default="cases", help="of the table (default cases)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put the table between this page's marks")
    return parser


def main(arguments: list[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    kept = args.output / f"predict_{args.name}.json" if args.output else None
    result: dict[str, Any] = {"cases": args.cases, "rows": []}
    if kept and kept.is_file():
        result = json.loads(kept.read_text("utf-8"))
    result["environment"] = {**environment(), "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder:
        for contender in contenders(args, Path(folder), {(row["network"], row["backend"]) for row in result["rows"]}):
            print(f"{contender.network} {contender.backend} …", file=sys.stderr, flush=True)
            result["rows"].append(measure(contender, args))
            if kept:
                write_json(result, kept)
    shown = table(result)
    print(to_text(shown))
    if args.page:
        insert(to_markdown(shown), args.page, args.name)


if __name__ == "__main__":
    show_plainly()
    main()
