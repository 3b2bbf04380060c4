from __future__ import annotations

import pytest
import torch

from dcd_ext.errors import UserError
from dcd_ext.losses.recokd import ReCoKDLoss
from tests.losses.contract import (
    assert_gradients,
    assert_parts_add_up,
    features,
    labels,
)

SIDES = (5, 3, 4)
TERMS = ["foreground", "background", "attention", "context"]


def slow_attention(x, temperature):
    """S (B, N) and A (B, C), from their definitions."""
    spatial, channel = [], []
    for f in x.flatten(2):
        c, n = f.shape
        s = torch.stack([torch.exp(sum(abs(f[k, v]) for k in range(c)) / c / temperature) for v in range(n)])
        a = torch.stack([torch.exp(sum(abs(f[k, v]) for v in range(n)) / n / temperature) for k in range(c)])
        spatial.append(n * s / s.sum())
        channel.append(c * a / a.sum())
    return torch.stack(spatial), torch.stack(channel)


def slow_regions(lifted, teacher, label, temperature, limit=float("inf")):
    """Foreground and background terms: the mean over present (sample, class) pairs of the mean weighted error in it."""
    spatial, channel = slow_attention(teacher, temperature)
    error = (lifted - teacher).flatten(2)
    pairs = {}
    for b in range(len(teacher)):
        for v, k in enumerate(label[b].flatten().tolist()):
            weights = spatial[b, v].clamp_max(limit) * channel[b]
            pairs.setdefault((b, k), []).append((weights * error[b, :, v] ** 2).mean())
    means = {pair: torch.stack(values).mean() for pair, values in pairs.items() if pair[1] >= 0}
    regions = []
    for wanted in (lambda k: k > 0, lambda k: k == 0):
        chosen = [mean for (_, k), mean in means.items() if wanted(k)]
        regions.append(sum(chosen) / len(chosen) if chosen else error.new_zeros(()))
    return regions


def slow_context(block, x):
    """The context block as convolutions on the whole volume: (B, C, 1, 1, 1)."""
    weights = torch.nn.functional.conv3d(x, block.attention.weight[:, :, None, None, None])
    weights = torch.exp(weights) / torch.exp(weights).sum((2, 3, 4), keepdim=True)
    context = (weights * x).sum((2, 3, 4), keepdim=True)
    first, norm, _, last = block.transform
    hidden = torch.nn.functional.conv3d(context, first.weight[:, :, None, None, None], first.bias)
    hidden = torch.nn.functional.group_norm(hidden, 1, norm.weight, norm.bias, norm.eps).relu()
    return torch.nn.functional.conv3d(hidden, last.weight[:, :, None, None, None], last.bias)


def awake(loss, seed=5):
    """The loss with context blocks that no longer say zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in (*loss.student_context.parameters(), *loss.teacher_context.parameters()):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return loss


@pytest.mark.usefixtures("slabs")
@pytest.mark.parametrize("projection", ["conv", "identity"])
def test_equals_slow_loop(projection):
    c = 4 if projection == "identity" else 2
    student, teacher, label = features(SIDES, c), features(SIDES, 4, seed=1), labels(SIDES, 3)
    label[1] = label[1].clamp_max(1)
    loss = awake(ReCoKDLoss([c], [4], num_classes=4, projection=projection).double())
    value = loss([student], [teacher], label=label)
    lifted = loss.projections[0](student)
    foreground, background = slow_regions(lifted, teacher, label, 0.5)
    attention = [
        (a - b).abs().mean() for a, b in zip(slow_attention(lifted, 0.5), slow_attention(teacher, 0.5), strict=True)
    ]
    o_s = lifted + slow_context(loss.student_context[0], lifted)
    o_t = teacher + slow_context(loss.teacher_context[0], teacher)
    expected = [foreground, background, sum(attention), (o_s - o_t).square().mean()]
    torch.testing.assert_close(list(loss.components.values()), [x.detach() for x in expected])
    torch.testing.assert_close(loss.peak_attention[0], slow_attention(teacher, 0.5)[0].max())
    assert_parts_add_up(loss, value, TERMS)


def test_coefficients_and_limit():
    student, teacher, label = features(SIDES, 2), features(SIDES, 4, seed=1), labels(SIDES, 3)
    plain = ReCoKDLoss([2], [4], 3, temperature=0.2).double()
    plain([student], [teacher], label=label)
    weights = {"foreground": 2.0, "attention": 0.0}
    other = ReCoKDLoss([2], [4], 3, temperature=0.2, coefficients=weights, max_attention=1.5).double()
    other([student], [teacher], label=label)
    regions = slow_regions(plain.projections[0](student).detach(), teacher, label, 0.2, limit=1.5)
    torch.testing.assert_close(other.components["foreground"], 2 * regions[0])
    torch.testing.assert_close(other.components["background"], regions[1])
    assert other.components["attention"] == 0
    torch.testing.assert_close(other.components["context"], plain.components["context"])
    assert other.components["background"] < plain.components["background"]


def test_stage_weights_fall_with_depth_and_labels_follow():
    five = ReCoKDLoss([2] * 5, [4] * 5, 2)
    assert five.stage_weights == pytest.approx([0.574, 0.250, 0.109, 0.047, 0.021], abs=6e-4)
    grids = [(10, 7, 9), (5, 4, 5)]
    student, teacher = [features(g, 2) for g in grids], [features(g, 4, seed=1) for g in grids]
    label = labels(grids[0], 3)
    small = torch.nn.functional.interpolate(label.double(), grids[1], mode="nearest").long()
    loss, one = ReCoKDLoss([2, 2], [4, 4], 3, alpha=0.5).double(), ReCoKDLoss([2], [4], 3).double()
    loss(student, teacher, label=label)
    one.projections[0].load_state_dict(loss.projections[1].state_dict())
    value = one(student[1:], teacher[1:], label=small)
    rho = 2**-1.5
    torch.testing.assert_close(loss.stage_losses[1], rho / (1 + rho) * value.detach())


def test_context_is_plain_mse_at_first():
    student, teacher, label = features(SIDES, 2), features(SIDES, 4, seed=1), labels(SIDES, 3)
    loss = ReCoKDLoss([2], [4], 3).double()
    loss([student], [teacher], label=label)
    mse = (loss.projections[0](student) - teacher).square().mean()
    torch.testing.assert_close(loss.components["context"], mse.detach())


def test_equal_features_give_zero():
    x, label = features(SIDES, 4, dtype=torch.float32), labels(SIDES)
    assert ReCoKDLoss([4], [4], 3, projection="identity")([x], [x.clone()], label=label).item() == 0


def test_absent_and_ignored_classes_contribute_nothing():
    student, teacher, label = features(SIDES, 2), features(SIDES, 4, seed=1), labels(SIDES, 3)
    few, many = ReCoKDLoss([2], [4], 3).double(), ReCoKDLoss([2], [4], 30).double()
    torch.testing.assert_close(few([student], [teacher], label=label), many([student], [teacher], label=label))
    many([student], [teacher], label=torch.zeros_like(label))
    assert many.components["foreground"] == 0 and many.components["background"] > 0
    ignored = label.clone()
    ignored[0, 0, :2] = 7
    loss = ReCoKDLoss([2], [4], 3, ignore_label=7).double()
    loss([student], [teacher], label=ignored)
    lifted = loss.projections[0](student).detach()
    expected = slow_regions(lifted, teacher, ignored.masked_fill(ignored == 7, -1), 0.5)
    torch.testing.assert_close([loss.components["foreground"], loss.components["background"]], expected)


def test_gradients():
    student, teacher, label = features((2, 3, 2), 2), features((2, 3, 2), 4, seed=1), labels((2, 3, 2), 3)
    loss = awake(ReCoKDLoss([2], [4], 3).double())
    names, parameters = zip(*loss.named_parameters(), strict=True)

    def function(s, *values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(loss, named, ([s], [teacher]), {"label": label})

    assert torch.autograd.gradcheck(function, (student.requires_grad_(), *parameters))
    assert_gradients(loss, [student], [teacher], label=label)


def test_everything_is_trained():
    """One step moves the last layers of the context blocks, a second one everything."""
    student, teacher, label = features(SIDES, 2).float(), features(SIDES, 4, seed=1).float(), labels(SIDES, 3)
    loss = ReCoKDLoss([2], [4], 3)
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss([student], [teacher], label=label).backward()
        optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in loss.named_parameters())
    frozen = ReCoKDLoss([2], [4], 3, train_projections=False)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_without_gradients():
    student, teacher, label = features(SIDES, 2).float(), features(SIDES, 4, seed=1).float(), labels(SIDES, 3)
    loss = ReCoKDLoss([2], [4], 3)
    with torch.inference_mode():
        inferred = loss([student], [teacher], label=label)
    torch.testing.assert_close(loss([student], [teacher], label=label).detach(), inferred)


def test_errors():
    student, teacher, label = [features(SIDES, 2)], [features(SIDES, 4)], labels(SIDES, 3)
    with pytest.raises(UserError, match="unknown option – every key of coefficients – expected 'foreground'"):
        ReCoKDLoss([2], [4], 3, coefficients={"fg": 1})
    with pytest.raises(UserError, match="option out of range – coefficients"):
        ReCoKDLoss([2], [4], 3, coefficients={"context": -1})
    with pytest.raises(UserError, match="option out of range – temperature"):
        ReCoKDLoss([2], [4], 3, temperature=0)
    with pytest.raises(UserError, match="option out of range – max_attention"):
        ReCoKDLoss([2], [4], 3, max_attention=0)
    with pytest.raises(UserError, match="option out of range – alpha"):
        ReCoKDLoss([2], [4], 3, alpha=-0.1)
    with pytest.raises(UserError, match="option out of range – num_classes"):
        ReCoKDLoss([2], [4], True)
    loss = ReCoKDLoss([2], [4], 3)
    with pytest.raises(ValueError, match="this loss needs the batch's label"):
        loss(student, teacher)
    with pytest.raises(UserError, match="label is not a class number"):
        loss(student, teacher, label=label + 1)
    with pytest.raises(ValueError, match="is coarser than the features"):
        loss(student, teacher, label=label[..., 1:])
    with pytest.raises(ValueError, match="student feature of stage 0 must have shape"):
        loss(teacher, teacher, label=label)
