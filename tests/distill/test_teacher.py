import pytest
import torch

from dcd_ext.distill.hooks import FeatureHooks
from dcd_ext.distill.teacher import FrozenTeacher, load_teacher
from dcd_ext.errors import UserError
from dcd_ext.weights import save_checkpoint
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


def test_hooks_end_the_forward_pass(checkpoint):
    teacher = load_teacher(build, checkpoint, "cpu")
    with FeatureHooks(teacher.network, ["encoder.stages.1"], stop_after_last=True) as hooks:
        teacher(torch.rand(1, 1, 8, 8, 8))
    (feature,) = hooks.pop()
    assert teacher.network.head_calls == 0 and feature.shape == (1, 8, 4, 4, 4) and not feature.requires_grad


def test_missing_weights_name_the_next_step(tmp_path):
    with pytest.raises(UserError, match=r"weights not found .* train the teacher bundle first, or pass --teacher_ckpt"):
        load_teacher(build, str(tmp_path / "model.pt"), "cpu")


def test_teacher_survives_to_and_apply():
    teacher = FrozenTeacher(ToyNet()).to(torch.float64)
    assert next(teacher.parameters()).dtype == torch.float64 and not teacher.network.training
