#!/usr/bin/env python3
"""Seconds per case of the whole command, its phases and its peak memory: teacher and student, each backend in turns.

Usage:
    python -m scripts.bench_predict bundles/hippocampus_segmentation_teacher bundles/hippocampus_segmentation_student \\
        --images prepared/images [--also "nnU-Net=nnUNetv2_predict -i {input} -o {output} ..."] [--output docs/results]

Each measurement is a process of its own, from the shell's start to its end. A bundle without models/model.pt gets
random weights in a temporary copy: they cost the same time.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dcd_ext.commands.common import positive
from dcd_ext.errors import UserError, show_plainly
from dcd_ext.io import write_json, write_text
from dcd_ext.parallel import cores
from dcd_ext.predict.backends import BACKENDS
from dcd_ext.predict.pipelines import PHASES
from dcd_ext.tables import Table, to_markdown, to_text
from dcd_ext.versions import environment
from scripts.benchmark import page, time_in_turns

_HEADER = ["network", "run by", "command s", "min", "max", "s/case", *PHASES, "peak GiB"]


class Contender:
    """A command line that writes label maps of the same images."""

    def __init__(self, network: str, backend: str, command: list[str], folder: Path) -> None:
        self.network, self.backend = network, backend
        self._command, self._folder = command, folder
        self.peak_gib = 0.0

    def run(self) -> None:
        """Once, into an empty folder.

        Raises:
            UserError: if the command fails.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        log = self._folder / "log"
        with open(log, "wb") as file, subprocess.Popen(self._command, stdout=file, stderr=file) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            last = (log.read_text("utf-8", "replace").strip().splitlines() or [""])[-1]
            raise UserError("command failed", shlex.join(self._command), "exit code 0", last, "run it by hand")
        self.peak_gib = max(self.peak_gib, usage.ru_maxrss / 2**20)

    def phases(self) -> dict[str, float]:
        """Mean seconds per case of each phase in the last run; empty for another program."""
        summary = self._folder / "summary.json"
        if not summary.is_file():
            return {}
        cases = json.loads(summary.read_text("utf-8"))["cases"]
        return {name: statistics.mean(case["seconds"][name] for case in cases) for name in PHASES}


def staged(root: Path, folder: Path) -> Path:
    """The bundle itself, or a copy with random weights if it has none."""
    if (root / "models" / "model.pt").is_file():
        return root
    import torch

    from dcd_ext.bundles.folder import BundleFolder

    target = folder / root.name
    shutil.copytree(root, target, ignore=shutil.ignore_patterns("eval"))
    torch.manual_seed(0)
    network = BundleFolder(target).parser().get_parsed_content("network_def")
    torch.save(network.state_dict(), target / "models" / "model.pt")
    return target


def contenders(args: argparse.Namespace, folder: Path) -> list[Contender]:
    """Each bundle with each backend, then the other programs."""
    images = [str(path) for path in args.images]
    made = []
    for root in args.bundles:
        for backend in args.backends:
            output = folder / root.name / backend
            command = [sys.executable, "-m", "dcd_ext", "predict", str(staged(root, folder)), *images]
            command += ["--output", str(output), "--backend", backend, "--threads", str(args.threads)]
            made.append(Contender(root.name, backend, command, output))
    for text in args.also:
        name, _, line = text.partition("=")
        output = folder / "others" / name
        words = [word.format(input=images[0], output=output) for word in shlex.split(line)]
        made.append(Contender(name, "its own command", words, output))
    return made


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All contenders in turns, after one untimed pass, which exports what a backend needs."""
    with tempfile.TemporaryDirectory() as folder:
        runs = contenders(args, Path(folder))
        times = time_in_turns({position: c.run for position, c in enumerate(runs)}, args.repeats, warm_up=1)
        rows = [
            {
                "network": contender.network,
                "backend": contender.backend,
                "seconds": times[position],
                "phases": contender.phases(),
                "peak_gib": contender.peak_gib,
            }
            for position, contender in enumerate(runs)
        ]
    return {"cases": args.cases, "rows": rows, "environment": {**environment(), "threads": args.threads}}


def table(result: dict[str, Any], title: str) -> Table:
    """One row per contender."""
    rows = []
    for row in result["rows"]:
        seconds, phases = row["seconds"], row["phases"]
        numbers = [statistics.median(seconds), min(seconds), max(seconds)]
        per_case = [f"{phases[name]:.3f}" if phases else "–" for name in PHASES]
        each = f"{numbers[0] / result['cases']:.2f}"
        cells = [f"{number:.1f}" for number in numbers]
        rows.append([row["network"], row["backend"], *cells, each, *per_case, f"{row['peak_gib']:.2f}"])
    note = (
        f"{result['cases']} case(s); «command s»: from the shell's start to its end, median, minimum and maximum of "
        f"{len(result['rows'][0]['seconds'])} runs in turns, {result['environment']['threads']} thread(s); phases: "
        "mean seconds per case, reading and writing overlap with the network; «peak»: of the process."
    )
    return Table(title, _HEADER, rows, note)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="as INPUT of dcd predict")
    parser.add_argument("--cases", type=positive, required=True, help="how many cases these are")
    usable = [name for name in BACKENDS if name != "auto"]
    parser.add_argument("--backends", nargs="+", choices=usable, default=["eager", "openvino", "openvino-bf16"])
    parser.add_argument(
        "--also", nargs="*", default=[], metavar="NAME=COMMAND", help="others, with {input} and {output}"
    )
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=cores())
    parser.add_argument("--output", type=Path, metavar="DIR", help="write predict_<name>.json and .md there, too")
    parser.add_argument("--name", default="cases", help="of the page (default cases)")
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser.parse_args(arguments)
    result = measure(args)
    shown = table(result, f"Whole cases on the CPU: {args.name}")
    print(to_text(shown))
    if args.output:
        stem = args.output / f"predict_{args.name}"
        write_json(result, stem.with_suffix(".json"))
        command = shlex.join(["python", "-m", "scripts.bench_predict", *arguments])
        title = f"Whole cases on the CPU: {args.name}"
        write_text(page(title, [to_markdown(shown)], command, result["environment"]), stem.with_suffix(".md"))


if __name__ == "__main__":
    show_plainly()
    main()
