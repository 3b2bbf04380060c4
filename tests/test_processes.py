"""A forked process behaves as one that Python was started for."""

import subprocess

import pytest

from tests.processes import fork_module, start_module

PROGRAM = """
import atexit, logging, multiprocessing, os, sys
atexit.register(print, "at exit")
logging.warning("a log line")
print(__name__, sys.argv[1:], os.getcwd(), os.environ["WORD"], multiprocessing.get_start_method(), sys.path[0])
{end}
"""
ENDS = ["", "sys.exit(3)", "sys.exit('in words')", "1 / 0"]


@pytest.mark.parametrize("end", ENDS)
def test_output_and_exit_code_are_those_of_a_fresh_interpreter(end, tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM.format(end=end))
    monkeypatch.setenv("WORD", "sun")
    expected, found = (run("program", ["--a", 1], tmp_path) for run in (start_module, fork_module))
    assert found.stdout == expected.stdout and "at exit" in found.stdout
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]
    assert found.returncode == expected.returncode


def test_it_does_not_wait_for_ever(tmp_path):
    (tmp_path / "program.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(subprocess.TimeoutExpired):
        fork_module("program", [], tmp_path, timeout=0.5)
