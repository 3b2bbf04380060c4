"""What a command line, a data list or weights say wrongly is refused in one line, also by MONAI's own command."""

import codecs
import json

import pytest

from tests.acceptance.conftest import config_files
from tests.conftest import read_json

NAME = "hippocampus_segmentation_student"


@pytest.fixture
def run(bundles, tmp_path):
    """A run of the small bundle: its last line, if it is refused, or its output folder."""
    bundle = bundles(NAME)

    def start(name, *options, code=1, dataset_dir=None):
        where = ["--dataset_dir", dataset_dir or bundle.data, "--output_dir", tmp_path / "out", *options]
        printed = bundle.monai("run", name, *config_files("train" if name == "training" else name), *where, code=code)
        assert "Traceback" not in printed and "weights_only=False" not in printed
        return printed.strip().splitlines()[-1] if code else tmp_path / "out"

    return start


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume", "off"], "resume – expected one of True, False, auto, found 'off'"),
        (["--max_epochs", "0"], "max_epochs – expected at least 1, found 0"),
        (["--val_interval", "0"], "val_interval – expected at least 1, found 0"),
        (
            ["--patch_size", "[16,24,20]"],
            "along z – command line or config file – expected a side divisible by 8, found 20",
        ),
        (["--device", "cuda:77"], "no such device – --device – expected cpu, or a GPU that torch finds, found cuda:77"),
        (["--fold", "11"], "expected fold in [0, 1, 2, 3, 4], found 11"),
    ],
)
def test_training(options, message, run, tmp_path):
    assert message in (line := run("training", *options)) and line.startswith("error: ")
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("training", "--output_dir", "$my results"),
        ("training", "--bundle_root", "@bundles"),
        ("inference", "--output_dir", "@results"),
        ("inference", "--ckpt_path", "$best.pt"),
        ("inference", "--datalist", "['a.nii.gz', '$case.nii.gz']"),
        ("inference", "--bundle_root", "$bundle"),
    ],
)
def test_a_value_that_monai_evaluates(name, option, value, run, tmp_path):
    line = run(name, option, value)
    assert line.startswith("error: ") and option in line and "absolute" in line
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("run_id", "config", "message"),
    [
        ("trainning", "train", "unknown run id – monai.bundle run – expected one of training, run, found trainning"),
        ("infer", "inference", "unknown run id – monai.bundle run – expected inference or run, found infer"),
        ("evaluating", "evaluate", "incomplete config – --config_file – expected \"['<bundle>/configs/train.json',"),
    ],
)
def test_a_run_id_or_a_config_that_does_not_suffice(run_id, config, message, bundles):
    printed = bundles(NAME).monai("run", run_id, *config_files(config), code=1)
    assert printed.strip().splitlines()[-1].startswith(f"error: {message}") and "Traceback" not in printed


def test_half_a_data_list(run, bundles, tmp_path):
    content = (bundles(NAME).data / "datalist.json").read_bytes()
    (tmp_path / "datalist.json").write_bytes(content[: len(content) // 3])
    assert "unreadable data list" in run("training", dataset_dir=tmp_path)
    assert run("inference", dataset_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--separate_folder", "no"], "separate_folder – expected true or false, found 'no'"),
        (["--device", "tpu"], "no such device – --device – expected cpu, or a GPU that torch finds, found tpu"),
        (["--output_dir", "/dev/null/results"], "cannot create the output folder – /dev/null/results"),
        (["--amp", "2"], "amp – expected true or false, found 2"),
        (["--patch_size", "[16,20,16]"], "the patch does not fit the strides"),
    ],
)
def test_inference_options(options, message, run):
    assert message in run("inference", *options)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1000], "weights cannot be read"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_inference_weights(spoil, message, run, bundles, tmp_path):
    content = (bundles(NAME).root / "models" / "model.pt").read_bytes()
    (tmp_path / "spoiled.pt").write_bytes(spoil(content))
    assert message in (line := run("inference", "--ckpt_path", tmp_path / "spoiled.pt")) and "spoiled.pt" in line


def test_false_means_false_and_a_byte_order_mark_nothing(run, bundles, tmp_path):
    content = read_json(bundles(NAME).data / "datalist.json")
    for entry in content["test"]:
        entry["image"] = str((bundles(NAME).data / entry["image"]).resolve())
    (tmp_path / "datalist.json").write_bytes(codecs.BOM_UTF8 + json.dumps(content).encode())
    output = run("inference", "--separate_folder", "false", "--amp", "False", code=0, dataset_dir=tmp_path)
    assert [path.parent for path in output.rglob("*_seg.nii.gz")] == [output] * len(content["test"])
