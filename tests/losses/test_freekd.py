from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from torch import nn

from dcd_ext.distill import PromptTuner, tune_prompts
from dcd_ext.distill.teacher import FrozenTeacher
from dcd_ext.errors import UserError
from dcd_ext.losses import FreeKDLoss
from dcd_ext.losses.prompts import join, split
from tests.losses.contract import (
    assert_gradients,
    assert_parts_add_up,
    features,
    labels,
)

SIDES = (9, 7, 6)
DETAILS = ["aad", "ada", "add", "daa", "dad", "dda", "ddd"]


def pywt_haar(x):
    """One level of an array (B, C, X, Y, Z), odd sides extended by repeating the last plane, by PyWavelets."""
    odd = [(0, 0), (0, 0), *((0, n % 2) for n in x.shape[2:])]
    return pywt.dwtn(np.pad(x, odd, mode="edge"), "haar", axes=(2, 3, 4))


def slow_frequency(lifted, teacher, prompt, levels):
    """One term per level, token and voxel, from PyWavelets' coefficients; ``prompt`` None: masks of 1."""
    s, t, total = lifted.detach().numpy(), teacher.numpy(), 0.0
    for j in range(1, levels + 1):
        bands_s, bands_t = pywt_haar(s), pywt_haar(t)
        details = sum(bands_t[key] for key in DETAILS)
        tokens = [None] if prompt is None else prompt[j].double().numpy()
        terms = []
        for b, x, y, z in np.ndindex(details.shape[0], *details.shape[2:]):
            for token in tokens:
                mask = 1.0 if token is None else 1 / (1 + np.exp(-(token @ details[b, :, x, y, z])))
                terms += [np.abs((bands_s[k] - bands_t[k])[b, :, x, y, z] * mask).mean() for k in DETAILS]
        total += np.mean(terms)
        s, t = bands_s["aaa"], bands_t["aaa"]
    return total


def random_prompts(path, channels, levels=3, tokens=2, seed=3):
    """A prompts file whose masks are far from uniform, and the prompts."""
    tuner = PromptTuner(nn.Identity(), [""] * len(channels), channels, tokens, levels)
    generator = torch.Generator().manual_seed(seed)
    for prompt in tuner.prompts:
        prompt.data = torch.randn(prompt.shape, generator=generator)
    tuner.save(str(path))
    return str(path), [p.detach() for p in tuner.prompts]


@pytest.mark.usefixtures("slabs")
@pytest.mark.parametrize("is_tuned", [True, False], ids=["tuned", "reduced"])
@pytest.mark.parametrize(("sides", "levels"), [(SIDES, 2), ((8, 8, 9), 3), ((3, 2, 2), 1)])
def test_equals_slow_loop(tmp_path, is_tuned, sides, levels):
    student, teacher = features(sides, 2), features(sides, 4, seed=1)
    path, prompts = random_prompts(tmp_path / "p.pt", [4]) if is_tuned else ("none", [None])
    loss = FreeKDLoss([2], [4], path, mse_weight=5).double()
    value = loss([student], [teacher])
    lifted = loss.projections[0](student)
    assert loss.stage_levels == [levels]
    assert loss.components["frequency"].item() == pytest.approx(slow_frequency(lifted, teacher, prompts[0], levels))
    torch.testing.assert_close(loss.components["mse"], 5 * (lifted - teacher).square().mean().detach())
    assert_parts_add_up(loss, value, ["frequency", "mse"])


def test_sum_over_stages():
    grids = [SIDES, (4, 4, 3), (1, 2, 2)]
    student, teacher = [features(g, 2) for g in grids], [features(g, 4, seed=1) for g in grids]
    loss = FreeKDLoss([2] * 3, [4] * 3, "none").double()
    loss(student, teacher)
    assert loss.stage_levels == [2, 1, 0]
    for i in range(3):
        one = FreeKDLoss([2], [4], "none").double()
        one.projections[0].load_state_dict(loss.projections[i].state_dict())
        torch.testing.assert_close(one([student[i]], [teacher[i]]).detach(), loss.stage_losses[i])
    # a grid of one voxel has no details
    assert one.components["frequency"] == 0


@pytest.mark.parametrize("is_tuned", [True, False])
def test_equal_features_give_zero(tmp_path, is_tuned):
    x = features(SIDES, 4, dtype=torch.float32)
    path = random_prompts(tmp_path / "p.pt", [4])[0] if is_tuned else "none"
    assert FreeKDLoss([4], [4], path, projection="identity")([x], [x.clone()]).item() == 0


def test_a_constant_difference_is_no_detail():
    x = features((8, 6, 4), 4)
    loss = FreeKDLoss([4], [4], "none", projection="identity")
    loss([x + 3], [x])
    assert loss.components["frequency"].item() == pytest.approx(0, abs=1e-12)
    assert loss.components["mse"].item() == pytest.approx(9)


@pytest.mark.usefixtures("slabs")
@pytest.mark.parametrize("is_tuned", [True, False])
def test_gradients(tmp_path, is_tuned):
    student, teacher = features((3, 2, 4), 2).requires_grad_(), features((3, 2, 4), 4, seed=1)
    path = random_prompts(tmp_path / "p.pt", [4])[0] if is_tuned else "none"
    loss = FreeKDLoss([2], [4], path).double()

    def function(s, weight, bias):
        named = {"projections.0.weight": weight, "projections.0.bias": bias}
        return torch.func.functional_call(loss, named, ([s], [teacher]))

    conv = loss.projections[0]
    assert torch.autograd.gradcheck(function, (student, conv.weight, conv.bias))
    assert_gradients(loss, [student], [teacher])


def test_a_label_is_not_looked_at():
    student, teacher = features(SIDES, 2), features(SIDES, 4, seed=1)
    loss = FreeKDLoss([2], [4], "none").double()
    assert torch.equal(loss([student], [teacher]), loss([student], [teacher], label=labels(SIDES)))


def test_prompts_are_constants(tmp_path):
    path, prompts = random_prompts(tmp_path / "p.pt", [4])
    loss = FreeKDLoss([2], [4], path)
    assert [name for name, _ in loss.named_parameters()] == ["projections.0.weight", "projections.0.bias"]
    assert torch.equal(loss.state_dict()["prompt_0"], prompts[0])
    assert "tuned prompts" in str(loss) and "reduced variant: no prompts" in str(FreeKDLoss([2], [4], "none"))


class Toy(nn.Module):
    """Two stages and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.second = nn.Sequential(nn.Conv3d(4, 6, 3, padding=1, stride=2), nn.LeakyReLU(inplace=True))
        self.up = nn.ConvTranspose3d(6, 4, 2, stride=2)
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, x):
        skip = self.first(x)
        return self.head(torch.cat((skip, self.up(self.second(skip))), 1))


def make_toy():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Toy()


def batches(n=3):
    return [
        {"image": features((8, 6, 8), 1, dtype=torch.float32, seed=i), "label": labels((8, 6, 8), 2, seed=i)}
        for i in range(n)
    ]


def task_loss(output, label):
    return nn.functional.cross_entropy(output, label[:, 0])


def slow_masked(x, prompt, levels):
    """Sum over tokens of the reconstruction from coefficients times that token's masks, token by token."""
    total = 0
    for token in prompt.double().numpy().transpose(1, 0, 2):
        low, stack = x.numpy(), []
        for j in range(1, levels + 1):
            bands = pywt_haar(low)
            mask = 1 / (1 + np.exp(-np.einsum("c,bcxyz->bxyz", token[j], sum(bands[k] for k in DETAILS))))
            stack.append(({k: bands[k] * mask[:, None] for k in DETAILS}, low.shape))
            low = bands["aaa"]
        low = low / (1 + np.exp(-np.einsum("c,bcxyz->bxyz", token[0], low)))[:, None]
        for details, shape in reversed(stack):
            low = pywt.idwtn({"aaa": low, **details}, "haar", axes=(2, 3, 4))
            low = low[tuple(slice(n) for n in shape)]
        total = total + low
    return torch.from_numpy(total)


def awake_tuner(tokens=2, levels=3):
    """A tuner with masks far from uniform, on a teacher that only passes on its input."""
    tuner = PromptTuner(nn.Identity(), [""], [4], tokens, levels).double()
    generator = torch.Generator().manual_seed(3)
    tuner.prompts[0].data = torch.randn(levels + 1, tokens, 4, generator=generator, dtype=torch.float64)
    return tuner


@pytest.mark.parametrize(("sides", "levels"), [(SIDES, 2), ((8, 8, 16), 3), ((1, 3, 2), 0)])
def test_masked_teacher_equals_slow_loop(sides, levels):
    tuner, x = awake_tuner(), features(sides, 4)
    torch.testing.assert_close(tuner(x).detach(), slow_masked(x, tuner.prompts[0].detach(), levels))


@pytest.mark.parametrize("sides", [SIDES, (8, 6, 4), (1, 2, 3)], ids=str)
def test_haar_inverse(sides):
    x = features(sides, 4)
    low, details = split(x)
    torch.testing.assert_close(join(low, details, sides), x)


def test_haar_equals_pywavelets():
    x = features(SIDES, 4)
    low, details = split(x)
    expected = pywt_haar(x.numpy())
    for key, band in zip(["aaa", *DETAILS], [low, *details], strict=True):
        np.testing.assert_allclose(band.numpy(), expected[key], atol=1e-12)


def test_diversity_is_the_mean_soft_dice_of_different_tokens():
    tuner, x = awake_tuner(tokens=3, levels=1), features((4, 4, 2), 4)
    tuner(x)
    bands = pywt_haar(x.numpy())
    expected = []
    for tokens, band in zip(
        tuner.prompts[0].detach().numpy(), (bands["aaa"], sum(bands[k] for k in DETAILS)), strict=True
    ):
        masks = 1 / (1 + np.exp(-np.einsum("tc,bcxyz->btxyz", tokens, band)))
        for m in masks:
            for i in range(3):
                expected += [
                    2 * (m[i] * m[k]).sum() / ((m[i] ** 2).sum() + (m[k] ** 2).sum()) for k in range(3) if k != i
                ]
    assert tuner.diversity.item() == pytest.approx(np.mean(expected))


def test_masks_that_vanish_are_not_alike():
    tuner = awake_tuner(tokens=3, levels=1).float()
    x = features((4, 4, 2), 4, dtype=torch.float32).abs() + 1
    tuner.prompts[0].data = torch.full_like(tuner.prompts[0], -1e3)
    tuner(x)
    # of the details some are positive and some negative, of the approximation all are positive
    assert 0 < tuner.diversity < 0.5 + 1e-6
    tuner.diversity.backward()
    assert tuner.prompts[0].grad.isfinite().all()


def test_tuning_changes_the_prompts_alone_and_helps(tmp_path):
    teacher = FrozenTeacher(make_toy())
    weights = {k: v.clone() for k, v in teacher.state_dict().items()}
    tuner = PromptTuner(teacher, ["first", "second"], [4, 6], tokens=3, levels=2)
    before = [p.detach().clone() for p in tuner.prompts]
    history = tune_prompts(tuner, batches(), task_loss, iterations=12, lr=0.5)
    assert len(history) == 12 and np.mean(history[-3:]) < np.mean(history[:3])
    assert all(torch.equal(v, weights[k]) for k, v in teacher.state_dict().items())
    assert all(not torch.equal(p, b) for p, b in zip(tuner.prompts, before, strict=True))
    assert not any("network" in key for key in tuner.state_dict())
    tuner.save(str(tmp_path / "deep" / "prompts.pt"))
    loss = FreeKDLoss([2, 3], [4, 6], str(tmp_path / "deep" / "prompts.pt"), levels=2)
    assert torch.equal(loss.prompt_1, tuner.prompts[1].detach())


def test_a_step_follows_the_gradient_of_task_plus_weighted_diversity():
    """A first step of SGD, whatever its momentum, is -lr times the gradient: alike masks are moved apart."""
    toy, lr, weight = make_toy(), 0.5, 3.0
    tuner = PromptTuner(toy, ["first", "second"], [4, 6], tokens=3, levels=2)
    (batch,) = batches(1)
    generator = torch.Generator().manual_seed(1)
    for prompt in tuner.prompts:
        prompt.data = torch.randn(prompt.shape, generator=generator)
    before = [p.detach().clone() for p in tuner.prompts]
    task = task_loss(tuner(batch["image"]), batch["label"])
    of_task = torch.autograd.grad(task, list(tuner.prompts), retain_graph=True)
    of_diversity = torch.autograd.grad(tuner.diversity, list(tuner.prompts))
    tune_prompts(tuner, [batch], task_loss, iterations=1, lr=lr, diversity_weight=weight)
    for p, b, t, d in zip(tuner.prompts, before, of_task, of_diversity, strict=True):
        assert d.abs().max() > 1e-3
        torch.testing.assert_close(p.detach(), b - lr * (t + weight * d))


def test_teacher_is_itself_again_afterwards():
    toy, image = make_toy(), batches(1)[0]["image"]
    with torch.no_grad():
        plain = toy(image)
    tuner = PromptTuner(toy, ["first"], [4])
    assert not torch.allclose(tuner(image), plain)
    assert torch.equal(toy(image), plain)
    tuner = PromptTuner(toy, ["first"], [5])
    with pytest.raises(ValueError, match="teacher feature of stage 0 must have shape"):
        tuner(image)
    assert torch.equal(toy(image), plain)


def test_tuning_resumes_and_runs_in_bf16(tmp_path):
    tuner = PromptTuner(make_toy(), ["first", "second"], [4, 6])
    assert all(np.isfinite(tune_prompts(tuner, batches(1), task_loss, iterations=2, amp=True)))
    fresh = PromptTuner(make_toy(), ["first", "second"], [4, 6])
    fresh.load_state_dict(tuner.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(fresh.prompts, tuner.prompts, strict=True))


def test_errors(tmp_path):
    path, _ = random_prompts(tmp_path / "p.pt", [4, 8], levels=2)
    with pytest.raises(UserError, match=r"tuned prompts not found .* or set prompts='none'"):
        FreeKDLoss([2], [4], str(tmp_path / "missing.pt"))
    with pytest.raises(UserError, match=r"prompts do not fit .* expected .*\[\(4, 4\)\] per stage, found \[\(3, 4\), "):
        FreeKDLoss([2], [4], path)
    (tmp_path / "broken.pt").write_bytes(b"no prompts")
    with pytest.raises(UserError, match="weights cannot be read .* tune the prompts"):
        FreeKDLoss([2], [4], str(tmp_path / "broken.pt"))
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a file of prompts .* expected the format 'freekd_prompts', found None"):
        FreeKDLoss([2], [4], str(tmp_path / "other.pt"))
    with pytest.raises(UserError, match="option out of range – levels"):
        FreeKDLoss([2], [4], "none", levels=0)
    with pytest.raises(UserError, match=r"option out of range – levels – expected a whole number from 1, found 2\.5"):
        FreeKDLoss([2], [4], "none", levels=2.5)
    with pytest.raises(UserError, match="option out of range – mse_weight"):
        FreeKDLoss([2], [4], "none", mse_weight=-1)
    with pytest.raises(ValueError, match="teacher feature of stage 0 must have shape"):
        FreeKDLoss([2], [4], "none")([features(SIDES, 2)], [features(SIDES, 5)])


def test_tuning_errors():
    toy = make_toy()
    with pytest.raises(
        UserError, match="no such module – Toy – expected a module path such as 'first', .* found 'third'"
    ):
        PromptTuner(toy, ["third"], [4])
    with pytest.raises(ValueError, match="one module path per entry of channels is needed, got 1 and 2"):
        PromptTuner(toy, ["first"], [4, 6])
    with pytest.raises(UserError, match="option out of range – tokens"):
        PromptTuner(toy, ["first"], [4], tokens=0)
    tuner = PromptTuner(toy, ["first"], [4])
    with pytest.raises(UserError, match="no data to tune on"):
        tune_prompts(tuner, [], task_loss)
    with pytest.raises(UserError, match="prompt tuning diverged – step 0"):
        tune_prompts(tuner, batches(1), lambda output, label: output.sum() * float("nan"))
