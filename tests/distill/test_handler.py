import re
from copy import deepcopy

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from dcd_ext.distill import DistillationHandler
from dcd_ext.distill.schedules import ConstantWeight, WarmupWeight
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.handlers import TrainingRecord
from dcd_ext.losses import DCDLoss
from tests.conftest import ToyNet

TAPS = ["encoder.stages.0", "encoder.stages.1"]


def parts(weight=1.0, **kwargs):
    """Student, teacher, loss, handler and the parameters to optimise."""
    torch.manual_seed(0)
    student, teacher = ToyNet(channels=2), FrozenTeacher(ToyNet(channels=4))
    loss = DCDLoss([2, 4], [4, 8], wavelet="haar", levels=1)
    handler = DistillationHandler(student, teacher, loss, weight, kwargs.pop("taps", TAPS), **kwargs)
    return student, teacher, loss, handler, [{"params": student.parameters()}, {"params": loss.parameters()}]


def record(trainer, names=("loss", "seg_loss", "kd_loss", "kd_weight")):
    """Values of every step, as plain numbers."""
    steps = []

    def keep(engine):
        steps.append({n: float(engine.state.output[n].detach()) for n in names if n in engine.state.output})

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, keep)
    return steps


def test_loss_is_the_sum_and_its_parts_are_reported(make_trainer, tmp_path):
    student, _, _, handler, parameters = parts(weight=0.5)
    trainer = make_trainer(student, [handler, TrainingRecord(str(tmp_path / "training.json"))], parameters)
    steps = record(trainer)
    trainer.run()
    for step in steps:
        assert step["kd_loss"] > 0
        assert step["loss"] == pytest.approx(step["seg_loss"] + 0.5 * step["kd_loss"], rel=1e-6)
    metrics = trainer.state.metrics
    assert metrics["kd_stage_0"] + metrics["kd_stage_1"] == pytest.approx(metrics["kd_loss"], rel=1e-6)
    assert metrics["kd_detail"] == pytest.approx(metrics["kd_loss"], rel=1e-6)
    assert metrics["kd_weight"] == 0.5
    assert metrics["loss"] == pytest.approx(sum(s["loss"] for s in steps[2:]) / 2, rel=1e-6)


def test_teacher_neither_changes_nor_gets_gradients(make_trainer):
    student, teacher, _, handler, parameters = parts()
    before = deepcopy(teacher.state_dict())
    make_trainer(student, [handler], parameters).run()
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters()) and not teacher.network.training
    assert teacher.network.head_calls == 0, "the teacher ran past its last tap"


def test_projections_get_gradients_and_change(make_trainer):
    student, _, loss, handler, parameters = parts()
    before = deepcopy(loss.state_dict())
    trainer = make_trainer(student, [handler], parameters)
    norms = []
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED, lambda: norms.append([float(p.grad.norm()) for p in loss.parameters()])
    )
    trainer.run()
    weights = [name for name in before if name.endswith("weight")]
    assert len(weights) == 2 and len(norms) == 4
    assert all(not torch.equal(before[name], loss.state_dict()[name]) for name in weights)
    assert all(norm > 0 for step in norms for norm in step[::2])


def test_projections_are_clipped_with_the_student(make_trainer):
    student, _, loss, handler, parameters = parts(weight=1e6)
    trainer = make_trainer(student, [handler], parameters, max_norm=0.1)
    before, norms = [], []

    def measure(values):
        grads = [p.grad for p in (*student.parameters(), *loss.parameters()) if p.grad is not None]
        values.append(float(torch.stack([g.norm() for g in grads]).norm()))

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda: measure(before))
    trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda: measure(norms))
    trainer.run()
    assert min(before) > 0.1
    assert norms == pytest.approx([0.1] * 4, rel=1e-3)


def test_weight_zero_equals_training_without_distillation_bit_for_bit(make_trainer):
    student, _, _, handler, parameters = parts(weight=0.0)
    plain = deepcopy(student)
    distilled = make_trainer(student, [handler], parameters, max_norm=12.0)
    steps = record(distilled, ["loss"])
    distilled.run()
    control = make_trainer(plain, max_norm=12.0)
    control_steps = record(control, ["loss"])
    control.run()
    assert steps == control_steps
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), plain.parameters(), strict=True))


def test_teacher_does_not_run_while_the_weight_is_zero(make_trainer):
    student, teacher, _, handler, parameters = parts(weight=WarmupWeight(1.0, start=0.5))
    calls = []
    teacher.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer = make_trainer(student, [handler], parameters, max_epochs=4)
    steps = record(trainer, ["kd_weight", "kd_loss"])
    trainer.run()
    assert len(calls) == 4 and [s["kd_weight"] for s in steps] == [0] * 4 + [1] * 4
    assert [("kd_loss" in s) for s in steps] == [False] * 4 + [True] * 4


def test_schedule_is_asked_for_epochs_from_zero(make_trainer):
    asked = []
    student, _, _, handler, parameters = parts(weight=lambda epoch, total: asked.append((epoch, total)) or 0.0)
    make_trainer(student, [handler], parameters, max_epochs=3).run()
    assert asked == [(0, 3), (1, 3), (2, 3)]


def test_no_hook_and_no_feature_is_left_behind(make_trainer):
    student, teacher, _, handler, parameters = parts()
    trainer = make_trainer(student, [handler], parameters)
    kept = []

    def count():
        kept.append(sum(len(f) for h in (handler._student_hooks, handler._teacher_hooks) for f in h._features))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, count)
    trainer.run()
    assert kept == [0] * 4
    assert not any(m._forward_hooks for n in (student, teacher) for m in n.modules())


def test_hooks_go_also_when_training_fails(make_trainer):
    student, _, _, handler, parameters = parts()
    trainer = make_trainer(student, [handler], parameters)

    @trainer.on(IterationEvents.FORWARD_COMPLETED)
    def fail():
        assert student.encoder.stages[0]._forward_hooks
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"out of memory"):
        trainer.run()
    assert not any(m._forward_hooks for m in student.modules())


def test_evaluation_between_epochs_does_not_disturb_the_hooks(make_trainer):
    student, _, _, handler, parameters = parts()
    trainer = make_trainer(student, [handler], parameters)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: student.eval()(torch.rand(1, 1, 16, 16, 16)))
    trainer.run()
    assert trainer.state.epoch == 2


def test_projections_missing_from_the_optimizer_are_an_error(make_trainer):
    student, _, _, handler, _ = parts()
    expected = "projections are not trained – optimizer – expected all parameters of kd_loss, found 4 missing"
    with pytest.raises(UserError, match=expected):
        make_trainer(student, [handler]).run()


def test_a_hook_that_does_not_fire_is_an_error(make_trainer):
    class Bypass(ToyNet):
        def forward(self, x):
            return self.head(self.encoder.stages[0](x))

    _, teacher, loss, _, _ = parts()
    student = Bypass()
    handler = DistillationHandler(student, teacher, loss, 1.0, TAPS)
    parameters = [{"params": student.parameters()}, {"params": loss.parameters()}]
    expected = "hook did not fire once per step – encoder.stages.1 of Bypass – expected 1 output, found 0 – name a"
    with pytest.raises(UserError, match=re.escape(expected)):
        make_trainer(student, [handler], parameters).run()


def test_a_module_that_returns_no_tensor_is_an_error(make_trainer):
    student, _, _, handler, parameters = parts(taps=["encoder.stages.0", "encoder"])
    with pytest.raises(UserError, match="no tensor to compare – encoder of ToyNet – expected a tensor, found list"):
        make_trainer(student, [handler], parameters).run()


def test_any_network_may_be_the_teacher_and_is_frozen(make_trainer):
    steps = []
    for frozen in (True, False):
        student, teacher, loss, _, parameters = parts()
        if not frozen:
            teacher = teacher.network.train().requires_grad_()
        trainer = make_trainer(student, [DistillationHandler(student, teacher, loss, 1.0, TAPS)], parameters)
        steps.append(record(trainer))
        trainer.run()
    assert steps[0] == steps[1] and not teacher.training and not any(p.requires_grad for p in teacher.parameters())


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="negative distillation weight"):
        parts(weight=-0.5)


def test_a_spatial_mismatch_is_an_error(make_trainer):
    student, _, loss, _, parameters = parts()
    teacher = ToyNet(channels=4)
    teacher.encoder.stages[1] = nn.Conv3d(4, 8, 3, padding=1)
    handler = DistillationHandler(student, FrozenTeacher(teacher), loss, 1.0, TAPS)
    with pytest.raises(UserError, match=r"stage 1: student and teacher differ in batch or grid, .*4.* and .*8.* – "):
        make_trainer(student, [handler], parameters).run()


def test_memory_of_features_is_flat_over_many_steps(make_trainer):
    student, _, _, handler, parameters = parts()
    trainer = make_trainer(student, [handler], parameters, max_epochs=12)
    alive = []

    def count():
        import gc

        gc.collect()
        alive.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))

    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=3), count)
    trainer.run()
    assert max(alive[1:]) - min(alive[1:]) <= 2


def test_weight_may_be_a_schedule_object(make_trainer):
    student, _, _, handler, parameters = parts(weight=ConstantWeight(0.25))
    trainer = make_trainer(student, [handler], parameters)
    steps = record(trainer, ["kd_weight"])
    trainer.run()
    assert steps == [{"kd_weight": 0.25}] * 4


def test_gradients_of_the_projections_are_the_mean_over_processes(make_trainer, monkeypatch):
    """As if a second process had found 3 everywhere. Real processes: tests/acceptance."""
    student, _, loss, handler, parameters = parts()
    trainer = make_trainer(student, [], parameters)
    trainer.state.epoch, trainer.state.max_epochs = 1, 1
    handler.epoch_started(trainer)
    frozen, *trained = loss.parameters()
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    answers = {"is_initialized": lambda: True, "get_world_size": lambda: 2, "all_reduce": lambda x: x.add_(3.0)}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.distributed, name, answer)
    handler.average_gradients(trainer)
    assert frozen.grad is None and all((parameter.grad == 2.0).all() for parameter in trained)
