import hashlib
import json
import re

import pytest
import torch
from monai.bundle import ConfigParser

from dcd_ext.bundles import prepare_run
from dcd_ext.bundles.config import check_keys
from tests.conftest import BUNDLES, make_workflow, read_json

NAME = "hippocampus_segmentation_student"


def cause(error):
    """The UserError inside what MONAI makes of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def start(**override):
    return make_workflow(NAME, "train", **override)


def test_shipped_keys_are_accepted():
    start(max_epochs=3, **{"train#trainer#max_epochs": 2, "train::optimizer::lr": 0.1})


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
    start(**{"train#my_key": 3, "extra_keys": ["train::my_key"]})


@pytest.mark.parametrize("declared", ["train::my_key", "train#my_key"])
def test_both_separators_declare_a_key(declared):
    folder = BUNDLES / NAME / "configs"
    check_keys({"train": {"my_key": 3}, "extra_keys": [declared]}, folder)
    with pytest.raises(ValueError, match="found 'train::my_key'"):
        check_keys({"train": {"my_key": 3}, "extra_keys": [declared.replace("my_", "your_")]}, folder)


def test_tracking_keys_are_known(tmp_path):
    # Tracking keeps the executed config in output_dir.
    make_workflow(NAME, "train", tracking="mlflow", output_dir=str(tmp_path))


def test_a_folder_that_is_no_bundle(tmp_path):
    expected = f"no bundle – {tmp_path} – expected configs/train.json, found none – pass --bundle_root"
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_keys({}, tmp_path)


def test_outside_a_config_it_says_so():
    with pytest.raises(RuntimeError, match=r"has to be called from a"):
        prepare_run()


@pytest.mark.parametrize("configs", [("train",), ("train", "evaluate")])
def test_a_data_set_that_failed_its_check_is_neither_trained_on_nor_scored(configs, prepared, tmp_path):
    datalist = (prepared("hippocampus") / "datalist.json").read_bytes()
    (tmp_path / "datalist.json").write_bytes(datalist)
    report = {"errors": 2, "cache_bytes": 0, "datalist_sha256": hashlib.sha256(datalist).hexdigest()}
    (tmp_path / "check.json").write_text(json.dumps(report))
    for refused in ({}, {"allow_unchecked": False}, {"allow_unchecked": "false"}):
        with pytest.raises(RuntimeError) as error:
            make_workflow(NAME, *configs, dataset_dir=str(tmp_path), **refused)
        assert "expected 0 errors, found 2" in cause(error.value)
    make_workflow(NAME, *configs, dataset_dir=str(tmp_path), allow_unchecked=True)


def test_mixed_precision_on_a_cpu_is_bfloat16_and_none_of_cudas():
    """Off by default; ``--amp True`` runs the network in bfloat16 and leaves the trainer's autocast alone."""
    image = torch.rand(1, 1, 16, 24, 16)
    for amp, dtype in ((None, torch.float32), (True, torch.bfloat16)):
        options = {} if amp is None else {"amp": amp}
        parser = start(device="cpu", features=[8] * 4, n_blocks=[1] * 4, **options).parser
        network, seen = parser.get_parsed_content("network"), []
        network.encoder.stages[0].register_forward_hook(lambda *a, seen=seen: seen.append(a[-1].dtype))
        assert all(output.dtype == torch.float32 for output in network(image)) and seen == [dtype]
        config = read_json(BUNDLES / NAME / "configs" / "train.json")
        for engine in (config["train"]["trainer"], config["validate"]["evaluator"]):
            assert ConfigParser({"device": "cpu", "amp": True, "use": engine["amp"]}).get_parsed_content("use") is False


@pytest.mark.parametrize(
    ("config", "unknown"),
    [
        ({"a": 1, "train": {"b": 1}}, None),
        ({"c": 1}, "c"),
        ({"train": {"x": 1}}, "train::x"),
        ({"train": {"_target_": "some.Class", "anything": 1}}, None),
        ({"+a": 1, "train#b#deep": 2}, None),
        ({"train#x": 2}, "train::x"),
    ],
)
def test_unknown_keys(config, unknown, tmp_path):
    (tmp_path / "train.json").write_text(json.dumps({"a": 1, "train": {"b": 1}}))
    if unknown is None:
        check_keys(config, tmp_path)
    else:
        with pytest.raises(ValueError, match=f"^unknown config key – .*found '{unknown}'"):
            check_keys(config, tmp_path)


@pytest.mark.parametrize("text", ["false", "False", "FALSE", False])
@pytest.mark.parametrize("name", ["resume", "save_predictions", "validate::dataloader::shuffle"])
def test_false_is_false(name, text):
    parser = make_workflow(NAME, "train", "evaluate", **{name: text}).parser
    assert parser[name] is False and parser.get_parsed_content(name) is False


def test_true_is_true_and_what_an_option_decides_follows():
    config = {"amp": "false", "save_predictions": "true", "features": [8] * 4, "n_blocks": [1] * 4, "device": "cpu"}
    parser = make_workflow(NAME, "train", "evaluate", **config).parser
    seen = []
    network = parser.get_parsed_content("network")
    network.encoder.stages[0].register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    network(torch.rand(1, 1, 16, 24, 16))
    assert seen == [torch.float32] and parser.get_parsed_content("save_predictions") is True


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"resume": "no"}, "resume – expected one of True, False, auto, found 'no'"),
        ({"amp": "bf16"}, "amp – expected true or false, found 'bf16'"),
        (
            {"validate::dataloader::shuffle": "never"},
            "validate::dataloader::shuffle – expected true or false, found 'ne",
        ),
        ({"train::max_grad_norm": "12,0"}, "train::max_grad_norm – expected a number, found '12,0'"),
        ({"max_epochs": 0}, "max_epochs – expected at least 1, found 0"),
        ({"max_epochs": True}, "max_epochs – expected a whole number, found True"),
        ({"val_interval": -2}, "val_interval – expected at least 1, found -2"),
        ({"iterations_per_epoch": 2.5}, "iterations_per_epoch – expected a whole number, found 2.5"),
        ({"batch_size": "two"}, "batch_size – expected a whole number, found 'two'"),
        ({"learning_rate": float("nan")}, "learning_rate – expected a number, found nan"),
        ({"fold": -1}, "fold – expected a whole number from 0, or all, found -1"),
        ({"fold": "every"}, "fold – expected a whole number from 0, or all, found 'every'"),
        ({"section": "tset"}, "section – expected one of training, validation, test, found 'tset'"),
        (
            {"patch_size": [40, 56, 36]},
            "the strides along z – command line or config file – expected a side divisible by 8",
        ),
        ({"patch_size": [40, 56]}, "patch_size – expected at least 3 entries, found [40, 56]"),
        ({"kd_stages": []}, "kd_stages – expected at least 1 entries, found []"),
        ({"kd_stages": 0}, "kd_stages – expected a list, found 0"),
        ({"kd_stages": [0, 9]}, "no such stage – command line or config file, kd_stages – expected 0 to 3, found 9"),
        ({"features": [8, 8]}, "'features' contradicts the other entries – command line or config file – expected 4"),
    ],
)
def test_an_option_of_another_kind_is_one_line(option, message):
    with pytest.raises(RuntimeError) as error:
        make_workflow(f"{NAME}_dcd" if "kd_stages" in option else NAME, "train", "evaluate", **option)
    assert message in cause(error.value) and "\n" not in cause(error.value)


def test_an_expression_may_stand_for_any_option():
    parser = start(max_epochs="$2 + 3", fold="@seed", amp="$torch.cuda.is_available()").parser
    assert parser.get_parsed_content("max_epochs") == 5


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*/configs/inference.json")), ids=lambda path: path.parts[-3])
def test_inference_reads_its_booleans_as_text_too(path):
    """It cannot ask dcd_ext: wherever one is used, MONAI's str2bool is between, but in the check of the run."""
    config = read_json(path)
    assert [step for step in config["run"] if isinstance(step, dict) and "amp" in step and "separate_folder" in step]
    text = json.dumps({key: value for key, value in config.items() if key not in ("run", "inference")})
    for name in ("amp", "separate_folder"):
        used = re.findall(rf".{{30}}@{name}\b", text)
        assert used and all("str2bool(" in use for use in used), used
