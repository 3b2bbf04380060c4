import pickle
import subprocess
import sys

import pytest
import torch

from dcd_ext.errors import UserError, user_error


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
    raise {outer}
"""


@pytest.mark.parametrize("outer", ["RuntimeError('wrapped by MONAI') from e", "KeyError('while it was handled')"])
def test_wrapped_user_error_ends_the_program_in_one_line(outer):
    result = subprocess.run([sys.executable, "-c", PROGRAM.format(outer=outer)], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: what – where – expected x, found y – next\n"


CONFIG = """
import torch
from dcd_ext.errors import show_plainly
show_plainly()

class Cases(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise ValueError("no image – a.nii – expected x, found y – repair it")
        except ValueError as error:
            raise RuntimeError("applying transform") from error

list(torch.utils.data.DataLoader(Cases(), num_workers={workers}))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_config_refuses_in_one_line_also_from_a_worker(workers):
    """What inference.json refuses without this package, training refuses by the same expressions."""
    result = subprocess.run([sys.executable, "-c", CONFIG.format(workers=workers)], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1] == "error: no image – a.nii – expected x, found y – repair it"
    assert result.returncode == 1 and "Traceback" not in result.stderr


def test_other_errors_and_the_environment_variable_keep_the_traceback(monkeypatch):
    program = "from dcd_ext.errors import show_plainly\nshow_plainly()\nraise RuntimeError('boom')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" in result.stderr and "boom" in result.stderr
    monkeypatch.setenv("DCD_TRACEBACK", "1")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(outer="RuntimeError('outer')")], capture_output=True, text=True
    )
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    "value", ["$cohort/new", "@cohort", "%cohort", "%cohort::new", "%cohort.json::new", "$1 +", "['%a']"]
)
def test_a_value_of_the_command_line_that_monai_cannot_evaluate_is_named(value, monkeypatch):
    from monai.bundle import ConfigParser

    monkeypatch.setattr(sys, "argv", ["run", "--dataset_dir", value, "--seed=$1 + 1"])
    content = {"dataset_dir": ["%a"] if value == "['%a']" else value, "seed": "$1 + 1"}
    with pytest.raises(Exception) as error:
        ConfigParser(content).get_parsed_content("dataset_dir")
    line = str(user_error(error.value))
    assert line.startswith("$, @ or %") and "– --dataset_dir – expected a path" in line and f"found {value} (" in line
    assert user_error(RuntimeError("of another kind")) is None


def test_what_the_system_says_about_files_and_packages_is_one_line(tmp_path):
    for work, message in (
        (
            lambda: (tmp_path / "none" / "a.json").read_text(),
            f"cannot use the file – {tmp_path}/none/a.json – found No such file",
        ),
        (lambda: (tmp_path / ("x" * 999)).stat(), "found File name too long – correct its path"),
        (lambda: __import__("not_installed_at_all"), "expected not_installed_at_all, found No module named"),
    ):
        with pytest.raises((OSError, ImportError)) as error:
            work()
        assert message in str(user_error(error.value))
    assert user_error(OSError("of a socket")) is None
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 8 GiB.")
    step = "end what else runs there, or lower batch_size"
    assert str(user_error(full)) == f"too little GPU memory – CUDA out of memory. Tried to allocate 2.00 GiB – {step}"
    # as ignite's handlers tell it
    told = RuntimeError("TensorBoardHandler requires tensorboard to be installed.\nPlease: \n pip install tensorboard")
    assert str(user_error(told)).startswith("package missing – ") and "\n" not in str(user_error(told))
