"""Prepare synthetic cases of ISLES size, kill the preparation half-way and restart it: memory, core use, repeated work.

Cases have the published sizes: FLAIR 512×512×29, DWI, ADC and mask 112×112×73. A few are drawn, the others are links
to them under other names, because preparation takes each file as it comes. Run it on an idle machine.

The exit code is 1 when memory, core use or the restart miss their limits.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from dcd_ext.data.cases import read_datalist
from dcd_ext.data.phantoms import PhantomSpec, write_phantoms
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_json
from dcd_ext.parallel import cores

ROOT = Path(__file__).resolve().parents[1]
SHAPE, FLAIR_SPACING = (112, 112, 73), (0.4375, 0.4375, 5.0)
MEMORY_LIMIT, CORE_SHARE = 2 * 2**30, 0.8
_PERIOD = 0.2


class Usage:
    """Memory and processor time of a process and all its children, by looking at them from time to time."""

    def __init__(self, process_id: int) -> None:
        self.main = psutil.Process(process_id)
        self.start = time.monotonic()
        self.peak_bytes = 0
        self._cpu: dict[int, float] = {}

    def sample(self) -> None:
        """Look once; pages that processes share count once for each."""
        resident = 0
        for process in [self.main, *self.main.children(recursive=True)]:
            try:
                resident += process.memory_info().rss
                times = process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            self._cpu[process.pid] = times.user + times.system
        self.peak_bytes = max(self.peak_bytes, resident)

    def sums(self, jobs: int) -> dict[str, Any]:
        """Wall and processor seconds, peak memory, and the share of ``jobs`` cores that was busy."""
        seconds, cpu = time.monotonic() - self.start, sum(self._cpu.values())
        result = {"seconds": seconds, "peak_bytes": self.peak_bytes, "cpu_seconds": cpu}
        return {**result, "core_share": cpu / seconds / jobs}


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


def run(name: str, source: Path, output: Path, jobs: int, total: int, kill_at: int | None = None) -> dict[str, Any]:
    """Run ``dcd prepare isles22``, watch it, and kill it once ``kill_at`` cases are finished."""
    command = [sys.executable, "-m", "dcd_ext", "prepare", "isles22", "--source", str(source), "--output", str(output)]
    command += ["--jobs", str(jobs)]
    log, killed = output.parent / "prepare.log", False
    with open(log, "a", encoding="utf-8") as file, tqdm(total=total, desc=name, unit="case") as bar:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        usage = Usage(process.pid)
        while process.poll() is None:
            usage.sample()
            bar.update(len(markers(output)) - bar.n)
            if kill_at is not None and bar.n >= kill_at:
                children = usage.main.children(recursive=True)
                process.kill()
                process.wait()
                psutil.wait_procs(children, timeout=30)
                killed = True
                break
            time.sleep(_PERIOD)
    if process.returncode and not killed:
        raise UserError(f"{name} failed", log, "exit code 0", process.returncode, "read the log")
    return {"name": name, **usage.sums(jobs), "finished": len(markers(output))}


def report(phases: list[dict[str, Any]], redone: int, total: int, listed: int) -> list[str]:
    """Print the table and return the limits that were missed."""
    for phase in phases:
        print(
            f"{phase['name']}: {phase['finished']} of {total} cases finished, {phase['seconds']:.0f} s, "
            f"peak {phase['peak_bytes'] / 2**30:.2f} GiB, cores {100 * phase['core_share']:.0f} % busy"
        )
    print(f"done again after the restart: {redone} cases; listed: {listed}")
    missed = [f"{p['name']}: more than 2 GiB" for p in phases if p["peak_bytes"] > MEMORY_LIMIT]
    missed += [f"{p['name']}: cores less than {CORE_SHARE:.0%} busy" for p in phases if p["core_share"] < CORE_SHARE]
    return missed + (["cases done again"] if redone else []) + (["cases missing"] if listed != total else [])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="new folder for data and results")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--distinct", type=int, default=10, help="cases that are drawn; the rest are links")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes (default: one per core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers here")
    args = parser.parse_args(argv)
    source, output = args.output.resolve() / "ISLES-2022", args.output.resolve() / "prepared"
    if source.exists() or output.exists():
        raise UserError("the folder is in use", args.output, "a new folder", "data", "name another --output")
    make_source(source, args.cases, args.distinct)
    output.mkdir(parents=True)
    first = run("first run", source, output, args.jobs, args.cases, kill_at=args.cases // 2)
    before = markers(output)
    second = run("restart", source, output, args.jobs, args.cases)
    after = markers(output)
    redone = sum(after.get(name) != stamp for name, stamp in before.items())
    listed = len(read_datalist(output / "datalist.json")["training"])
    missed = report([first, second], redone, args.cases, listed)
    if args.json:
        content = {"cases": args.cases, "jobs": args.jobs, "redone": redone, "listed": listed}
        write_json({**content, "phases": [first, second], "missed": missed}, args.json)
    shutil.rmtree(source)
    shutil.rmtree(output)
    print("\n".join(missed) or "all limits met")
    return 1 if missed else 0


if __name__ == "__main__":
    show_plainly()
    sys.exit(main())
