import re

import pytest
import torch

from dcd_ext.distill.teacher import FrozenTeacher, load_state_dict_strictly, load_teacher
from dcd_ext.errors import UserError
from dcd_ext.io import save_checkpoint
from tests.conftest import ToyNet


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(ToyNet(channels=4).state_dict(), path)
    return str(path)


def build():
    return ToyNet(channels=4)


def test_teacher_is_frozen_in_three_ways(checkpoint):
    teacher = load_teacher(build, checkpoint, "cpu")
    teacher.train()
    assert not teacher.network.training and not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(torch.rand(1, 1, 8, 8, 8, requires_grad=True)).requires_grad


def test_loading_leaves_the_random_state_alone(checkpoint):
    before = torch.get_rng_state()
    load_teacher(build, checkpoint, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_taps_end_the_forward_pass(checkpoint):
    teacher = load_teacher(build, checkpoint, "cpu")
    taps = teacher.tap(["encoder.stages.1"])
    assert teacher(torch.rand(1, 1, 8, 8, 8)) is None
    assert teacher.network.head_calls == 0 and taps.pop()[0].shape == (1, 8, 4, 4, 4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "network."])
def test_wrapper_prefixes_and_a_model_entry_are_understood(tmp_path, prefix):
    network = ToyNet()
    state = {prefix + k: v for k, v in network.state_dict().items()}
    save_checkpoint({"model": state}, tmp_path / "wrapped.pt")
    other = ToyNet()
    load_state_dict_strictly(other, str(tmp_path / "wrapped.pt"), "-")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_missing_file(tmp_path):
    path = str(tmp_path / "model.pt")
    expected = (
        f"weights not found – {path} – expected a checkpoint, found no such file – train the teacher bundle first"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        load_teacher(build, path, "cpu")


def test_wrong_width_names_key_and_both_shapes(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(ToyNet(channels=2).state_dict(), path)
    with pytest.raises(
        UserError, match=r"weights do not fit the network .* expected shape .* found shape .* train the"
    ):
        load_teacher(build, str(path), "cpu")


def test_missing_key_is_an_error(tmp_path):
    state = ToyNet(channels=4).state_dict()
    del state["head.bias"]
    save_checkpoint(state, tmp_path / "model.pt")
    expected = r"1 keys differ\) – .*key head.bias – expected shape \(2,\), found shape none"
    with pytest.raises(UserError, match=expected):
        load_teacher(build, str(tmp_path / "model.pt"), "cpu")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (print, ("code from a checkpoint",))

    torch.save({"head.bias": Attack()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"weights cannot be read .* expected tensors only"):
        load_teacher(build, str(tmp_path / "model.pt"), "cpu")


def test_teacher_survives_to_and_apply():
    teacher = FrozenTeacher(ToyNet()).to(torch.float64)
    assert next(teacher.parameters()).dtype == torch.float64 and not teacher.network.training
