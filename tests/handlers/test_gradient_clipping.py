"""The clipping of the shipped configs: a pre-hook of the optimizer's step, right under a gradient scaler, too."""

import pytest
import torch
from monai.engines.utils import IterationEvents

from tests.conftest import ToyNet, clip_gradients


def gradient_norm(network):
    return float(torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm())


def test_norm_is_clipped_before_the_step(make_trainer):
    torch.manual_seed(0)
    network = ToyNet()
    trainer = make_trainer(network, max_norm=1e-3)
    seen = []
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda: seen.append(gradient_norm(network)))
    trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda: seen.append(gradient_norm(network)))
    trainer.run()
    assert all(before > 1e-3 for before in seen[::2])
    assert seen[1::2] == pytest.approx([1e-3] * 4, rel=1e-2)


def test_small_gradients_are_left_alone(make_trainer):
    torch.manual_seed(0)
    one, two = ToyNet(), ToyNet()
    two.load_state_dict(one.state_dict())
    make_trainer(one, max_norm=1e6).run()
    make_trainer(two).run()
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_under_a_gradient_scaler_the_true_norm_is_clipped(scale):
    """The scaler multiplies gradients by ``scale``; clipping those would clip to 12 / scale."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer.register_step_pre_hook(clip_gradients())
    loss = (parameter * torch.tensor([30.0, 40.0, 0.0])).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert parameter.detach().tolist() == pytest.approx([-7.2, -9.6, 0.0], rel=1e-5)


def test_an_infinite_gradient_skips_the_step():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.register_step_pre_hook(clip_gradients())
    scaler.scale((parameter * torch.tensor([float("inf"), 1.0])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert parameter.tolist() == [1.0, 1.0] and scaler.get_scale() == 4.0


def test_all_zero_gradients_are_no_error():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    optimizer.register_step_pre_hook(clip_gradients())
    (0 * parameter).sum().backward()
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0]
