import pickle
import subprocess
import sys

import pytest

from dcd_ext.errors import UserError


def test_message_has_the_contracts_shape():
    error = UserError("weights not found", "models/model.pt", "a checkpoint", "no such file", "train first")
    assert str(error) == (
        "weights not found – models/model.pt – expected a checkpoint, found no such file – train first"
    )
    assert isinstance(error, ValueError)


def test_a_duplicate_needs_no_comparison():
    assert str(UserError("duplicate case 7", "datalist.json", next_step="remove one")) == (
        "duplicate case 7 – datalist.json – remove one"
    )
    assert str(UserError("damaged", "a.pt", found="half a file", next_step="copy it")) == (
        "damaged – a.pt – found half a file – copy it"
    )
    assert str(UserError("wrong number", "key", 0, None, "change it")) == (
        "wrong number – key – expected 0, found None – change it"
    )


def test_worker_processes_can_send_it():
    error = UserError("duplicate case 7", "datalist.json", next_step="remove one")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


PROGRAM = """
from dcd_ext.errors import UserError, show_plainly
show_plainly(); show_plainly()
try:
    raise UserError("what", "where", "x", "y", "next")
except UserError as e:
    raise {outer} from e
"""


@pytest.mark.parametrize("outer", ["RuntimeError('wrapped by MONAI')", "KeyError('wrapped again')"])
def test_wrapped_user_error_ends_the_program_in_one_line(outer):
    result = subprocess.run([sys.executable, "-c", PROGRAM.format(outer=outer)], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: what – where – expected x, found y – next\n"


def test_other_errors_and_the_environment_variable_keep_the_traceback(monkeypatch):
    program = "from dcd_ext.errors import show_plainly\nshow_plainly()\nraise RuntimeError('boom')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" in result.stderr and "boom" in result.stderr
    monkeypatch.setenv("DCD_TRACEBACK", "1")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(outer="RuntimeError('outer')")], capture_output=True, text=True
    )
    assert "Traceback" in result.stderr
