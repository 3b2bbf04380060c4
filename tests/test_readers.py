"""Files that others may write: each fault is one line that names the entry."""

import codecs
import json
import re
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from dcd_ext.data.cases import load_cases, read_datalist
from dcd_ext.errors import UserError
from dcd_ext.readers import SCHEMAS
from tests.conftest import ROOT, read_json

CASE = {"image": ["a.nii.gz", "b.nii.gz"], "label": "l.nii.gz", "case": "one", "subject": "one", "fold": 0}


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_schemas_are_valid_and_described(path):
    Draft202012Validator.check_schema(read_json(path))
    assert f"`{path.name}`" in (ROOT / "docs" / "file_formats.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"image": None}, "training[1].image – expected text, found None"),
        ({"image": ["a.nii.gz", 3]}, "training[1].image[1] – expected text, found 3"),
        ({"image": []}, "training[1].image – expected at least 1 entries, found []"),
        ({"label": True}, "training[1].label – expected text, found True"),
        ({"label": "l\u0000.nii"}, "training[1].label – expected the name of a file, found 'l\\x00.nii'"),
        ({"case": "../../up"}, "training[1].case – expected a name without '/'"),
        ({"case": 7}, "training[1].case – expected text, found 7"),
        ({"fold": "0"}, "training[1].fold – expected a whole number, found '0'"),
        ({"fold": 1.0}, "training[1].fold – expected a whole number, found 1.0"),
        ({"fold": True}, "training[1].fold – expected a whole number, found True"),
    ],
)
def test_an_entry_of_a_data_list(entry, place, tmp_path):
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [CASE, {**CASE, **entry}]}))
    with pytest.raises(UserError, match=re.escape(f"datalist.json, {place}")) as error:
        load_cases(str(tmp_path), "training")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['{"training": [{"ca', '{"test": ["\\ud800"]}', "[" * 10**5, '{"a": 1, "a": 2}'])
def test_a_damaged_data_list(text, tmp_path):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(UserError, match=r"^unreadable data list – .*datalist.json – expected complete JSON, found .+"):
        read_datalist(tmp_path / "datalist.json")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "datalist.json").write_bytes(codecs.BOM_UTF8 + json.dumps({"test": ["ä.nii.gz"]}).encode())
    assert read_datalist(tmp_path / "datalist.json")["test"] == [{"image": "ä.nii.gz"}]


def test_a_message_is_one_line_whatever_it_quotes():
    error = UserError("no\ncase", Path("a\x1b[2Jb"), "x\u202ey", torch.zeros(2, 2))
    assert str(error).splitlines() == [str(error)] and "\x1b" not in str(error) and "\\u202e" in str(error)
