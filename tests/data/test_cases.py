import json
import os
import re

import pytest

from dcd_ext.data.cases import load_cases
from dcd_ext.data.tasks import task_by_name
from dcd_ext.errors import UserError


@pytest.fixture
def dataset(tmp_path):
    cases = [
        {"image": [f"i{i}.nii.gz", "/abs.nii.gz"], "label": "l.nii.gz", "case": str(i), "fold": i % 3} for i in range(6)
    ]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": cases, "test": [{"image": "t.nii.gz"}]}))
    return str(tmp_path)


def test_folds_split_training_and_validation(dataset):
    training = [c["case"] for c in load_cases(dataset, "training", 1)]
    validation = [c["case"] for c in load_cases(dataset, "validation", 1)]
    assert (training, validation) == (["0", "2", "3", "5"], ["1", "4"])


def test_paths_are_resolved_against_the_data_list(dataset):
    case = load_cases(dataset, "validation", 0)[0]
    assert case["image"] == [os.path.join(dataset, "i0.nii.gz"), "/abs.nii.gz"]
    assert load_cases(dataset, "test")[0]["image"] == os.path.join(dataset, "t.nii.gz")


def test_unknown_fold(dataset):
    with pytest.raises(
        UserError, match=re.escape("no validation case") + ".*" + re.escape("fold in [0, 1, 2], found 7")
    ):
        load_cases(dataset, "validation", 7)


def test_fold_all_holds_nothing_out_and_says_so(dataset, caplog):
    for section in ("training", "validation"):
        assert [c["case"] for c in load_cases(dataset, section, "all")] == list("012345")
    (record,) = caplog.records
    assert "validation scores are those of the training cases" in record.message


@pytest.mark.parametrize(("section", "fold"), [("training", 0), ("validation", 1)])
def test_a_single_fold_leaves_one_side_empty(section, fold, tmp_path):
    case = {"image": "i.nii.gz", "label": "l.nii.gz", "case": "a", "fold": 0}
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [case]}))
    with pytest.raises(
        UserError, match=f"no {section} case – .* expected cases in two folds, found all in fold 0 – --fold all"
    ):
        load_cases(str(tmp_path), section, fold)


@pytest.mark.parametrize("key", ["image", "label", "case", "fold"])
def test_an_incomplete_entry_is_named(key, dataset):
    path = os.path.join(dataset, "datalist.json")
    with open(path) as file:
        content = json.load(file)
    del content["training"][4][key]
    with open(path, "w") as file:
        json.dump(content, file)
    with pytest.raises(UserError, match=rf"incomplete entry – .*training\[4\] – expected .*{key}.*, found no {key} – "):
        load_cases(dataset, "training")


def test_a_test_case_that_is_scored_needs_a_label(dataset):
    assert load_cases(dataset, "test")
    with pytest.raises(UserError, match=r"incomplete entry – .*test\[0\] – .*, found no label"):
        load_cases(dataset, "test", labelled=True)


def test_a_case_stays_a_name_although_a_folder_has_it_too(dataset):
    os.mkdir(os.path.join(dataset, "0"))
    assert load_cases(dataset, "validation", 0)[0]["case"] == "0"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"training": {}}', '{"training": [3]}', '{"folds": 0}'])
def test_damaged_lists_are_one_line(text, tmp_path):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(UserError, match=r"^(unreadable|unusable) data list – [^\n]*datalist.json.* – .*dcd prepare"):
        load_cases(str(tmp_path), "training")


def test_channels_are_sorted_as_numbers(tmp_path):
    channels = {str(number): f"c{number}" for number in reversed(range(11))}
    data_format = {"inputs": {"image": {"channel_def": channels}}, "outputs": {"pred": {"channel_def": {"1": "x"}}}}
    (tmp_path / "metadata.json").write_text(json.dumps({"network_data_format": data_format}))
    assert task_by_name(str(tmp_path / "metadata.json")).modalities == tuple(f"c{number}" for number in range(11))


def test_no_datalist(tmp_path):
    with pytest.raises(
        UserError, match=r"no data list – .*datalist.json – expected a file, found none – .*dcd prepare"
    ):
        load_cases(str(tmp_path), "training")


def test_no_test_section(tmp_path):
    (tmp_path / "datalist.json").write_text('{"training": []}')
    with pytest.raises(UserError, match=r"no 'test' entries"):
        load_cases(str(tmp_path), "test")
