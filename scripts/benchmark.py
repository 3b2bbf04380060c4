"""What the benchmarks share: options, timing in turns, the memory of a process, and the page that shows a result."""

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from dcd_ext.commands.common import positive
from dcd_ext.errors import UserError
from dcd_ext.io import write_text

Key = TypeVar("Key")
_CLEAR = Path("/proc/self/clear_refs")


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
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    resident = process_bytes("VmRSS")
    step()
    peak = process_bytes("VmHWM")
    return float("nan") if peak is None or resident is None else (peak - resident) / 2**20


def reset_peak() -> None:
    """Linux sets the peak (VmHWM) to the present size (VmRSS); a new process inherits its parent's otherwise."""
    if _CLEAR.exists():
        _CLEAR.write_text("5", "utf-8")


def process_bytes(field: str) -> int | None:
    """``VmRSS`` or ``VmHWM`` of this process, where the system tells them."""
    if not _CLEAR.exists():
        return None
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def page(title: str, parts: Iterable[str], command: str, environment: Mapping[str, Any]) -> str:
    """A Markdown page: parts, the command that made it, and what it ran on."""
    versions = "\n".join(f"- {name}: {value}" for name, value in environment.items())
    return "\n\n".join([f"# {title}", *parts, f"Written by\n\n```\n{command}\n```", versions]) + "\n"


def insert(markdown: str, path: Path, name: str) -> None:
    """Replace what a page has between its two marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    text = path.read_text("utf-8")
    if begin not in text or end not in text:
        raise UserError("no place for the table", path, f"{begin} … {end}", "none", "add both marks")
    write_text(text[: text.index(begin) + len(begin)] + f"\n{markdown}\n" + text[text.index(end) :], path)
