import re

import pytest

from dcd_ext.bundles.config import check_keys, unknown_keys
from tests.conftest import BUNDLES, make_workflow

NAME = "hippocampus_segmentation_student"


def cause(error):
    """The UserError inside what MONAI makes of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def start(**override):
    return make_workflow(NAME, "train", **override)


def test_shipped_keys_are_accepted():
    start(max_epochs=3, **{"train#trainer#max_epochs": 2, "optimizer#lr": 0.1})


def test_an_unknown_key_names_the_nearest_one():
    with pytest.raises(RuntimeError) as error:
        start(learning_rat=3)
    expected = (
        "unknown config key – command line or config file – expected 'learning_rate', found 'learning_rat' – "
        "correct it, or pass --extra_keys \"['learning_rat']\" if you mean it"
    )
    assert cause(error.value) == expected


def test_unknown_keys_of_a_group_are_found():
    with pytest.raises(RuntimeError) as error:
        start(**{"train#dataloaders": {"batch_size": 3}})
    assert "expected 'train::dataloader', found 'train::dataloaders'" in cause(error.value)


def test_a_key_that_is_meant_can_be_declared():
    start(my_key=3, extra_keys=["my_key"])


def test_tracking_keys_are_known(tmp_path):
    # Tracking keeps the executed config in output_dir.
    make_workflow(NAME, "train", tracking="mlflow", output_dir=str(tmp_path))


def test_a_folder_that_is_no_bundle(tmp_path):
    expected = f"no bundle – {tmp_path} – expected a folder with configs/metadata.json, found none – pass --bundle_root"
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_keys(str(tmp_path))


def test_outside_a_config_it_says_so():
    with pytest.raises(RuntimeError, match=r"has to be called from a"):
        check_keys(str(BUNDLES / NAME))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"a": 1, "train": {"b": 1}}, []),
        ({"c": 1}, ["c"]),
        ({"train": {"x": 1}}, ["train::x"]),
        ({"train": {"_target_": "some.Class", "anything": 1}}, []),
        ({"+a": 1, "train#b#deep": 2}, []),
        ({"train#x": 2}, ["train::x"]),
    ],
)
def test_unknown_keys(config, expected):
    assert unknown_keys(config, {"": {"a", "train"}, "train": {"b"}}) == expected
