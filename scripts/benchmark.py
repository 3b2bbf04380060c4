"""What the benchmarks share: options, data, timing in turns, the memory of a process, and pages that show a result."""

import argparse
import ctypes
import gc
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from tqdm import tqdm

from dcd_ext.commands.common import positive
from dcd_ext.errors import UserError
from dcd_ext.io import write_json, write_text
from dcd_ext.tables import Table, to_markdown, to_text

ROOT = Path(__file__).resolve().parents[1]
Key = TypeVar("Key")
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def torch_parser(description: str) -> argparse.ArgumentParser:
    """A command line with the options of the benchmarks that run on any device."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers here")
    return parser


def show(table: Table, content: Any, options: argparse.Namespace) -> None:
    """Print the table and write all numbers, as the options of :func:`torch_parser` say."""
    print(to_markdown(table) if options.markdown else to_text(table))
    if options.json:
        write_json(content, options.json)


def prepared_phantoms(task: str, work: Path, cases: int, shape: Sequence[int], folds: int) -> Path:
    """A prepared set of ``cases`` phantoms below ``work``, or the one that was made before."""
    source, prepared = work / f"{task}{cases}", work / f"{task}{cases}_prepared"
    if not (prepared / "datalist.json").exists():
        for command in (
            ["phantoms", "--layout", task, "--output", source, "--cases", cases, "--shape", *shape],
            ["prepare", task, "--source", source, "--output", prepared, "--folds", folds],
        ):
            subprocess.run([sys.executable, "-m", "dcd_ext", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return prepared


def time_in_turns(steps: Mapping[Key, Callable[[], Any]], repeats: int, warm_up: int = 0) -> dict[Key, list[float]]:
    """Seconds of each step after ``warm_up`` untimed ones. They take turns, so a busy machine disturbs all alike."""
    times: dict[Key, list[float]] = {key: [] for key in steps}
    for repeat in tqdm(range(repeats + warm_up if repeats else 0), desc="passes", disable=None):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if repeat >= warm_up:
                times[key].append(time.perf_counter() - start)
    return times


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Median, minimum and maximum; None for no numbers."""
    if not seconds:
        return None
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def peak_extra(step: Callable[[], Any], gradients_of: Iterable[torch.Tensor]) -> float:
    """MiB that one step needs beyond what is there before it: features and parameters, but not their gradients."""
    step()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        # what is reserved: a recorded step keeps memory that it has not allocated
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        for _ in range(2):
            step()
        return (torch.cuda.max_memory_reserved() - before) / 2**20
    for tensor in gradients_of:
        # those of the warm-up belong to what the step has to allocate
        tensor.grad = None
    if not _CLEAR.exists():
        return math.nan
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Linux: the peak becomes what is resident now; a new process inherits its parent's otherwise
    _CLEAR.write_text("5", "ascii")
    resident = psutil.Process().memory_info().rss
    step()
    peak = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**10 - resident / 2**20


def write_page(stem: Path, title: str, parts: Iterable[str], command: str, content: Mapping[str, Any]) -> None:
    """All numbers as ``.json``; parts, the command that made them and its environment as a page in ``.md``."""
    write_json(content, stem.with_suffix(".json"))
    versions = "\n".join(f"- {name}: {value}" for name, value in content["environment"].items())
    text = "\n\n".join([f"# {title}", *parts, f"Written by\n\n```\n{command}\n```", versions])
    write_text(text + "\n", stem.with_suffix(".md"))


def insert(markdown: str, path: Path, name: str) -> None:
    """Replace what a page has between its two marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    text = path.read_text("utf-8")
    if begin not in text or end not in text:
        raise UserError("no place for the table", path, f"{begin} … {end}", "none", "add both marks")
    write_text(text[: text.index(begin) + len(begin)] + f"\n{markdown}\n" + text[text.index(end) :], path)
