import json

import pytest

from dcd_ext.io import write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "result.json"
    write_json({"a": 1}, path)

    def fail(name):
        with open(name, "w") as file:
            file.write("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"disk full"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_folders_are_made(tmp_path):
    write_json([1], tmp_path / "a" / "b" / "c.json")
    assert (tmp_path / "a" / "b" / "c.json").read_text() == "[\n    1\n]\n"


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        write_json({"dice": float("nan")}, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())
