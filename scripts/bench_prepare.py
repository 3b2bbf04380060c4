#!/usr/bin/env python3
"""Prepare synthetic ISLES-size cases, kill it half-way, start again: memory, use of the cores, nothing done twice.

Cases have the published sizes: FLAIR 512×512×29, DWI, ADC and mask 112×112×73. A few are drawn, the others are links
to them under other names, because preparation takes each file as it comes. Run it on an idle machine.

Usage:
    python scripts/bench_prepare.py --output FOLDER [--cases 200] [--jobs N] [--json FILE]

Exits with 1 when memory, cores or the restart miss what is promised.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from tqdm import tqdm

from dcd_ext.data.phantoms import PhantomSpec, write_phantoms
from dcd_ext.errors import UserError
from dcd_ext.io import write_json
from dcd_ext.parallel import cores

ROOT = Path(__file__).resolve().parents[1]
SHAPE, FLAIR_SPACING = (112, 112, 73), (0.4375, 0.4375, 5.0)
MEMORY_LIMIT, CORE_SHARE = 2 * 2**30, 0.8
_PERIOD = 0.2


@dataclass
class Phase:
    """What one run of ``dcd prepare`` took.

    Attributes:
        name: which run.
        seconds: wall time.
        peak_bytes: largest sum of resident memory over all its processes; shared pages count once for each.
        cpu_seconds: processor time of all its processes.
        core_share: ``cpu_seconds`` by wall time by core.
        finished: cases with a marker at its end.
    """

    name: str
    seconds: float = 0.0
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    core_share: float = 0.0
    finished: int = 0
    _cpu: dict[int, float] = field(default_factory=dict)

    def sample(self, main: psutil.Process) -> None:
        """Look at the process tree once."""
        resident = 0
        for process in [main, *main.children(recursive=True)]:
            try:
                resident += process.memory_info().rss
                times = process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            self._cpu[process.pid] = times.user + times.system
        self.peak_bytes = max(self.peak_bytes, resident)

    def close(self, start: float, jobs: int, finished: int) -> None:
        """Sum up."""
        self.seconds = time.monotonic() - start
        self.cpu_seconds = sum(self._cpu.values())
        self.core_share = self.cpu_seconds / self.seconds / jobs
        self.finished = finished

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}


def make_source(folder: Path, cases: int, distinct: int) -> None:
    """Draw ``distinct`` cases and link the others to them."""
    spec = PhantomSpec(folder, "isles22", cases=min(cases, distinct), shape=SHAPE, flair_spacing=FLAIR_SPACING)
    write_phantoms(spec)
    drawn = [f for f in folder.rglob("*.nii.gz") if f.is_file()]
    for number in range(spec.cases + 1, cases + 1):
        original = f"sub-strokecase{(number - 1) % spec.cases + 1:04d}"
        for file in (f for f in drawn if f.name.startswith(original)):
            link = Path(str(file).replace(original, f"sub-strokecase{number:04d}"))
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, link)


def markers(output: Path) -> dict[str, int]:
    """Finished cases and when each was finished, in nanoseconds."""
    return {file.parent.name: file.stat().st_mtime_ns for file in output.glob("on_flair/*/done.json")}


def run(name: str, source: Path, output: Path, jobs: int, total: int, kill_at: int | None = None) -> Phase:
    """Run ``dcd prepare isles22``, watch it, and kill it once ``kill_at`` cases are finished.

    Raises:
        UserError: when it fails by itself.
    """
    command = [sys.executable, "-m", "dcd_ext", "prepare", "isles22", "--source", str(source), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    phase, start = Phase(name), time.monotonic()
    with open(output.parent / "prepare.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "--jobs", str(jobs)], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        main = psutil.Process(process.pid)
        with tqdm(total=total, desc=name, unit="case", dynamic_ncols=True) as bar:
            while process.poll() is None:
                phase.sample(main)
                done = len(markers(output))
                bar.update(done - bar.n)
                if kill_at is not None and done >= kill_at:
                    children = main.children(recursive=True)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    psutil.wait_procs(children, timeout=30)
                    phase.close(start, jobs, len(markers(output)))
                    return phase
                time.sleep(_PERIOD)
    if process.returncode:
        raise UserError(f"{name} failed", log.name, "exit code 0", process.returncode, "read the log")
    phase.close(start, jobs, len(markers(output)))
    return phase


def report(phases: list[Phase], redone: int, total: int, listed: int) -> list[str]:
    """Print the table and return what misses its promise."""
    for phase in phases:
        print(
            f"{phase.name}: {phase.finished} of {total} cases finished, {phase.seconds:.0f} s, "
            f"peak {phase.peak_bytes / 2**30:.2f} GiB, cores {100 * phase.core_share:.0f} % busy"
        )
    print(f"done again after the restart: {redone} cases; listed: {listed}")
    missed = [f"{p.name}: more than 2 GiB" for p in phases if p.peak_bytes > MEMORY_LIMIT]
    missed += [f"{p.name}: cores less than {CORE_SHARE:.0%} busy" for p in phases if p.core_share < CORE_SHARE]
    return missed + (["cases done again"] if redone else []) + (["cases missing"] if listed != total else [])


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="new folder for data and results")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--distinct", type=int, default=10, help="cases that are drawn; the rest are links")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes (default: one per core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers here")
    args = parser.parse_args(argv)
    source, output = args.output.resolve() / "ISLES-2022", args.output.resolve() / "prepared"
    try:
        if source.exists() or output.exists():
            raise UserError("the folder is in use", args.output, "a new folder", "data", "name another --output")
        make_source(source, args.cases, args.distinct)
        output.mkdir(parents=True)
        first = run("first run", source, output, args.jobs, args.cases, kill_at=args.cases // 2)
        before = markers(output)
        second = run("restart", source, output, args.jobs, args.cases)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    after = markers(output)
    redone = sum(after.get(name) != stamp for name, stamp in before.items())
    listed = len(json.loads((output / "datalist.json").read_text("utf-8"))["training"])
    missed = report([first, second], redone, args.cases, listed)
    if args.json:
        content = {"cases": args.cases, "jobs": args.jobs, "redone": redone, "listed": listed}
        write_json({**content, "phases": [first.as_dict(), second.as_dict()], "missed": missed}, args.json)
    shutil.rmtree(source)
    shutil.rmtree(output)
    print("\n".join(missed) or "all as promised")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
