"""Where fuzzed inputs are read: a folder of which everything but the output has to stay as it was."""

import contextlib
import io
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import UserError
from dcd_ext.tables import Table, to_markdown
from tests.conftest import ROOT

# of the processor, which others may use, too; and in all
SECONDS, PATIENCE = 10, 120
COUNTS: Counter[tuple[str, bool]] = Counter()
_PAGE = ROOT / "docs" / "checks.md"


class Hang(BaseException):
    """No Exception, so that nothing takes it for a damaged file."""


class Sandbox:
    """Three folders deep, so that a name such as ../../x stays within what is watched.

    Attributes:
        input: folder of the files that are read.
        output: a new folder for each input.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.input, self.output = root / "a" / "b" / "input", root / "a" / "b" / "output"
        self.input.mkdir(parents=True)

    def run(self, kind: str, work: Callable[[], Any], writes: tuple[str, ...] = ()) -> bool:
        """Whether ``work`` accepts its input; ``writes`` are the names it may write beside the input.

        Fails if it raises anything but a UserError of one line, takes too long, or writes elsewhere.
        """
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir()
        before = self._files(writes)
        accepted = _timed(work)
        assert self._files(writes) == before
        COUNTS[kind, accepted] += 1
        return accepted

    def _files(self, writes: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if Path(folder, name) != self.output]
            for name in set(files) - set(writes):
                status = os.lstat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (status.st_size, status.st_mtime_ns)
        return found


def _timed(work: Callable[[], Any]) -> bool:
    def stop(*_: object) -> None:
        raise Hang(f"more than {SECONDS} seconds of the processor, or {PATIENCE} in all")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return work() is not False
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def command(*arguments: object, reports: bool = False) -> bool:
    """Whether ``dcd`` ends with 0; a command that ``reports`` findings may end with 1 and without an error."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        code = dcd([str(argument) for argument in arguments])
    error = printed.getvalue()
    assert "Traceback" not in error
    assert code == 0 or reports or re.fullmatch(r"(?s)(.*[\r\n])?error: [^\n]+\n", error), error
    return code == 0


@pytest.fixture(scope="session")
def examples() -> Callable[[int], int]:
    """How many inputs of a kind are tried: so many per hundred of ``DCD_FUZZ``, by default a few in the gate."""
    total = int(os.environ.get("DCD_FUZZ", "0"))
    return lambda percent: total * percent // 100 if total else max(3, percent)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Also the working directory."""
    made = Sandbox(tmp_path / "sandbox")
    monkeypatch.chdir(made.input)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return made


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What one of several processes has counted."""
    COUNTS.update({tuple(key): number for key, number in getattr(node, "workeroutput", {}).get("fuzz", [])})


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """``./runtests.sh --fuzz`` writes the counts into docs/checks.md, if none of the inputs made a test fail."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["fuzz"] = [[list(key), number] for key, number in COUNTS.items()]
    if output is not None or exitstatus or not os.environ.get("DCD_FUZZ"):
        return
    rows = [[kind, COUNTS[kind, True], COUNTS[kind, False]] for kind in sorted({kind for kind, _ in COUNTS})]
    rows.append(["all", *(sum(row[column] for row in rows) for column in (1, 2))])
    head = ["input", "tried", "accepted", "refused in one line", "tracebacks", "over 10 s", "files outside"]
    table = Table("", head, [[kind, f"{a + b:,}", f"{a:,}", f"{b:,}", "0", "0", "0"] for kind, a, b in rows])
    start, end = "<!-- written by ./runtests.sh --fuzz -->\n", "<!-- end -->"
    before, _, rest = _PAGE.read_text("utf-8").partition(start)
    _PAGE.write_text(before + start + to_markdown(table) + "\n" + end + rest.partition(end)[2], "utf-8")
