"""Peak memory of this process, since a moment where the system can tell."""

import sys
from contextlib import suppress
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Begins to measure when it is made."""

    def __init__(self) -> None:
        with suppress(OSError):
            _CLEAR.write_text("5", "ascii")  # Linux: the peak starts anew

    def gib(self) -> float | None:
        """Largest resident memory in GiB; of the whole process where the peak cannot be reset; None on Windows."""
        if _STATUS.is_file():
            line = next(line for line in _STATUS.read_text("ascii").splitlines() if line.startswith("VmHWM"))
            return round(int(line.split()[1]) / 2**20, 3)
        try:
            import resource
        except ImportError:
            return None
        unit = 2**30 if sys.platform == "darwin" else 2**20
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 3)
