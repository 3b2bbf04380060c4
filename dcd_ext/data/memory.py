"""How much memory this process took at most, and may still use: free, left by control groups and ``ulimit -v``."""

import sys
from contextlib import suppress
from pathlib import Path, PurePosixPath

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# part of the available memory that a cache of cases may take; the rest is for network, workers and augmentation
CACHE_SHARE = 0.8
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Begins to measure when it is made."""

    def __init__(self) -> None:
        with suppress(OSError):
            _CLEAR.write_text("5", "ascii")  # Linux: the peak starts anew

    def gib(self) -> float | None:
        """Largest resident memory in GiB; of the whole process where the peak cannot be reset; None on Windows."""
        if _STATUS.is_file():  # ru_maxrss would count what the process that started this one had used
            line = next(line for line in _STATUS.read_text("ascii").splitlines() if line.startswith("VmHWM"))
            return round(int(line.split()[1]) / 2**20, 3)
        if resource is None:
            return None
        unit = 2**30 if sys.platform == "darwin" else 2**20
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 3)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes this process may still use before something kills it; ``proc`` and ``sys`` are below ``root``.

    The smallest of: memory the system can free up, room left in every control group above this process, room left
    below the address-space limit.
    """
    import psutil  # bundles are opened without it

    rooms = [psutil.virtual_memory().available, *_cgroup_rooms(root)]
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            rooms.append(soft - psutil.Process().memory_info().vms)
    return max(0, min(rooms))


def _cgroup_rooms(root: Path) -> list[int]:
    """Room left in each control group that limits this process; a parent group may be tighter than its child."""
    rooms: list[int] = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux, or no control groups
        return rooms
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        # inside a container the path may be the host's: folders that do not exist are passed over
        for folder in {mount / group, *(mount / parent for parent in group.parents)}:
            room = _room(folder, limit, usage)
            if room is not None:
                rooms.append(room)
    return rooms


def _room(folder: Path, limit: str, usage: str) -> int | None:
    """Limit less usage of one control group in bytes, or None where there is no limit."""
    try:
        top = (folder / limit).read_text().strip()
        if top == "max":
            return None
        used = int((folder / usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # file cache counts as used, although the kernel gives it back on demand
    return int(top) - used + int(statistics.get("inactive_file", 0))
