import pytest

from dcd_ext.bundles.tools import config_files, read_options
from dcd_ext.errors import UserError
from tests.conftest import BUNDLES

BUNDLE = BUNDLES / "hippocampus_segmentation_student_dcd"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (["--kd_loss_def#bands", "diagonal"], {"kd_loss_def#bands": "diagonal"}),
        (["--a=-1.5", "--b", "[1, 2]", "--c", "None"], {"a": -1.5, "b": [1, 2], "c": None}),
        (["--teacher_ckpt", "/some where/model.pt"], {"teacher_ckpt": "/some where/model.pt"}),
    ],
)
def test_options_are_read_as_monai_reads_them(words, options):
    assert read_options(words) == options


def test_unreadable_options():
    with pytest.raises(UserError, match="unknown argument – command line – expected --key value, found 'stray'"):
        read_options(["--a", "1", "stray"])
    with pytest.raises(UserError, match="option without value .* found --a"):
        read_options(["--a"])


def test_config_files_are_found_beside_and_below_the_bundle(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    train, method = (str(BUNDLE / "configs" / name) for name in ("train.json", "methods/cwd.json"))
    assert config_files("train.json", str(BUNDLE)) == [train]
    assert config_files(train, str(BUNDLE)) == [train]
    assert config_files("['train.json','configs/methods/cwd.json']", str(BUNDLE)) == [train, method]
    with pytest.raises(UserError, match=r"config file not found – cdw\.json"):
        config_files("['train.json','cdw.json']", str(BUNDLE))
