"""What every distillation loss has to keep, as checks that each loss's tests call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.data import MetaTensor

from dcd_ext.losses.base import DistillationLoss


def features(sides, channels=3, batch=2, dtype=torch.float64, seed=0):
    """A random feature volume (batch, channels, *sides)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *sides, generator=generator, dtype=dtype)


def labels(sides, classes=3, batch=2, seed=0):
    """A random label (batch, 1, *sides)."""
    return torch.randint(classes, (batch, 1, *sides), generator=torch.Generator().manual_seed(seed))


def assert_leaves_random_state(make: Callable[[], torch.nn.Module]) -> None:
    """Making the loss draws nothing from the global state, and the same values every time."""
    state = torch.get_rng_state()
    first = make()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = make()
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def assert_parts_add_up(loss: DistillationLoss, value: torch.Tensor, names: list[str]) -> None:
    """Components and stages are detached scalars whose sums are the loss."""
    assert value.ndim == 0
    assert list(loss.components) == names
    for parts in (list(loss.components.values()), list(loss.stage_losses)):
        assert not any(p.requires_grad or p.ndim for p in parts)
        torch.testing.assert_close(torch.stack(parts).sum(), value.detach())


def assert_gradients(loss: DistillationLoss, student, teacher, *, output: bool = False, label=None) -> None:
    """The gradient reaches student and parameters, never the teacher, whose values stay as they are."""
    student = [s.detach().clone().requires_grad_() for s in student]
    teacher = [t.detach().clone().requires_grad_() for t in teacher]
    before = [t.detach().clone() for t in teacher]
    call = ([], [], student, teacher) if output else (student, teacher)
    loss(*call, label=label).backward()
    assert all(s.grad is not None and s.grad.abs().sum() > 0 for s in student)
    assert all(t.grad is None for t in teacher)
    assert all(torch.equal(t, b) for t, b in zip(teacher, before, strict=True))
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def assert_survives_background_in_bf16(loss: DistillationLoss, widths=((4, 8), (8, 16)), classes=3) -> None:
    """Finite value and gradients on a patch of background in bfloat16 autocast, near-constant channels included."""
    pairs = [
        (features((n,) * 3, s, 1, torch.bfloat16), 30 * features((n,) * 3, t, 1, torch.bfloat16, seed=1))
        for n, (s, t) in zip((16, 8), widths, strict=True)
    ]
    for s, t in pairs:
        s[:, 0], t[:, 0], t[:, 1] = 0, 0, 1
        s[..., 0], t[..., 0] = 0, 0
    student = [s.requires_grad_() for s, _ in pairs]
    output = (20 * features((16,) * 3, classes, 1, torch.bfloat16)).requires_grad_()
    label = MetaTensor(torch.zeros(1, 1, 16, 16, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, [MetaTensor(t) for _, t in pairs], [output], [output.detach() - 20], label)
    assert type(value) is torch.Tensor and value.dtype == torch.float32 and value.isfinite()
    value.backward()
    leaves = [*(student if loss.needs_features else [output]), *loss.parameters()]
    for leaf in leaves:
        assert leaf.grad is not None and leaf.grad.dtype == leaf.dtype and leaf.grad.isfinite().all()
