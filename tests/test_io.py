import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, sha256, write_atomically, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "result.json"
    write_json({"a": 1}, path)

    def fail(name):
        with open(name, "w") as file:
            file.write("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write the file – .*result.json – .* found No space left on device – "):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_two_processes_that_write_one_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    """The second begins and ends while the first is writing; whole is what the last to end has written."""
    path = tmp_path / "x"

    def write_slowly(name):
        Path(name).write_text("half")
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            write_text("second", path)
        assert path.read_text() == "second"
        with Path(name).open("a") as file:
            file.write(" and half")

    write_atomically(path, write_slowly)
    assert path.read_text() == "half and half" and list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_has_the_suffixes_and_is_hidden(tmp_path):
    seen = []
    write_atomically(tmp_path / "a.nii.gz", lambda name: (seen.append(name), open(name, "w").close()))
    assert seen[0].startswith(f"{tmp_path}/.") and seen[0].endswith("a.nii.gz")


def test_folders_are_made(tmp_path):
    write_json([1], tmp_path / "a" / "b" / "c.json")
    assert (tmp_path / "a" / "b" / "c.json").read_text() == "[\n    1\n]\n"
    (tmp_path / "file").write_text("")
    for make in (make_folder, lambda folder: write_text("x", folder / "x")):
        with pytest.raises(UserError, match=r"cannot create .* – .*file/x – .* found Not a directory – "):
            make(tmp_path / "file" / "x")


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        write_json({"dice": float("nan")}, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_text_keeps_its_line_ends(tmp_path):
    write_text("ä\r\nb\n", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == "ä\r\nb\n".encode()


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_sha256_of_the_whole_file(size, tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)) * (size // 256) + b"e" * (size % 256))
    assert sha256(tmp_path / "x") == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()


def test_checkpoints_need_no_pickled_code(tmp_path):
    import torch

    from dcd_ext.weights import save_checkpoint

    save_checkpoint({"step": 1}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"step": 1}


def test_preparing_and_checking_data_start_without_torch():
    program = (
        "import sys; from dcd_ext.commands import prepare, check, phantoms, studies; "
        "assert not {'torch', 'monai', 'itk', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
