"""DCDLoss: golden values, and value and gradients against the direct form by ptwt."""

from __future__ import annotations

import ptwt
import pytest
import torch
import torch.nn.functional as F

from dcd_ext.errors import UserError
from dcd_ext.losses import DCDLoss
from dcd_ext.wavelets.energy.plan import make_plan

KEYS = ["aad", "ada", "daa", "add", "dad", "dda"]


@pytest.fixture(autouse=True)
def _fast_on_every_grid(monkeypatch):
    """Small grids would be left to one matrix or to the reference form."""
    monkeypatch.setattr("dcd_ext.wavelets.energy.engine._MIN_VOXELS", 0)
    monkeypatch.setattr("dcd_ext.wavelets.energy.dense._MAX_VOXELS", {"cpu": 0})


def random_stage(sides, batch=2, student=3, teacher=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(batch, student, *sides, dtype=torch.float64, generator=generator)
    t = torch.randn(batch, teacher, *sides, dtype=torch.float64, generator=generator)
    return s.to(dtype).requires_grad_(), t.to(dtype)


def details(x, wavelet, levels, mode, keys):
    """Per level from the coarsest: the kept subbands of ptwt's transform, the others zero."""
    low, *bands = ptwt.wavedec3(x, wavelet, mode=mode, level=levels)
    bands = [{k: v if k in keys else torch.zeros_like(v) for k, v in level.items()} for level in bands]
    return [low if "aaa" in keys else torch.zeros_like(low), *bands]


def direct_loss(student, teacher, projection, wavelet, levels, mode, keys):
    """Convolve, decompose, mask, reconstruct both sides, mean squared error; gradients by autograd."""
    volumes = [
        ptwt.waverec3(details(x, wavelet, levels, mode, keys), wavelet)[..., : x.shape[2], : x.shape[3], : x.shape[4]]
        for x in (projection(student), teacher)
    ]
    return F.mse_loss(*volumes)


def value_and_gradients(function, loss, student):
    value = function()
    return [value, *torch.autograd.grad(value, [student, *loss.parameters()])]


# Provenance: computed with PyWavelets in zero mode (wavedecn, zero aaa and ddd, waverecn, crop) in float64, as the mean
# squared difference of the two volumes' projections; volumes of `golden_volume` with k = 1.0 and 1.3.
GOLDEN = [
    (32, "db4", 1, 0.05949979),
    (32, "db4", 2, 0.39644957),
    (32, "db4", 3, 0.50982972),
    (32, "haar", 1, 0.12965462),
    (32, "haar", 2, 0.50334159),
    (32, "haar", 3, 0.51778942),
    (16, "db4", 1, 0.08725956),
    (16, "db4", 2, 0.44637469),
    (16, "db4", 3, 0.54781680),
]


def golden_volume(n: int, k: float) -> torch.Tensor:
    z, y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * 3, indexing="ij")
    return (torch.sin(0.7 * z * k + 0.3) * torch.cos(0.5 * y + 0.1 * k) + 0.2 * torch.sin(1.9 * x * k))[None, None]


@pytest.mark.parametrize(("n", "wavelet", "levels", "expected"), GOLDEN)
def test_golden_values(n, wavelet, levels, expected):
    loss = DCDLoss([1], [1], wavelet, levels, cap_levels=False, projection="identity")
    value = loss([golden_volume(n, 1.0)], [golden_volume(n, 1.3)])
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("sides", "wavelet", "levels", "mode", "bands", "keys"),
    [
        ((12, 9, 14), "db4", 1, "zero", "directional", KEYS),
        ((31, 16, 33), "db4", 3, "zero", "directional", KEYS),
        ((4, 5, 7), "db4", 2, "zero", "directional", KEYS),
        ((16, 14, 40), "haar", 3, "zero", "directional", KEYS),
        ((17, 14, 20), "db2", 2, "zero", ("aad", "daa"), ["aad", "daa"]),
        ((17, 14, 20), "db2", 3, "zero", "approximation", ["aaa"]),
        ((17, 14, 20), "db2", 2, "zero", "diagonal", ["ddd"]),
        ((17, 14, 20), "db2", 2, "zero", "all", ["aaa", *KEYS, "ddd"]),
        ((9, 14, 12), "bior2.2", 2, "zero", "directional", KEYS),
        ((9, 14, 12), "db4", 1, "symmetric", "directional", KEYS),
        ((17, 14, 16), "db2", 2, "reflect", "directional", KEYS),
        ((17, 14, 16), "db2", 2, "periodic", ("aad", "ddd"), ["aad", "ddd"]),
        ((9, 14, 12), "haar", 2, "constant", "directional", KEYS),
    ],
)
def test_equals_direct_form(monkeypatch, sides, wavelet, levels, mode, bands, keys):
    # plane by plane; the other tests' volumes are one slab each
    monkeypatch.setattr("dcd_ext.wavelets.energy.slabs._SLAB_BYTES", {"cpu": 1})
    student, teacher = random_stage(sides)
    loss = DCDLoss([3], [5], wavelet, levels, mode, bands, cap_levels=False).double()
    projection = loss.projections[0]
    found = value_and_gradients(lambda: loss([student], [teacher]), loss, student)
    expected = value_and_gradients(
        lambda: direct_loss(student, teacher, projection, wavelet, levels, mode, keys), loss, student
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sides", [(28, 31, 33), (7, 5, 4), (14, 20, 16)], ids=str)
def test_fast_form_equals_reference_form(sides):
    student, teacher = random_stage(sides, dtype=torch.float32)
    loss = DCDLoss([3], [5], cap_levels=False)
    reference = DCDLoss([3], [5], cap_levels=False, engine="reference")
    values = [value_and_gradients(lambda: form([student], [teacher]), form, student) for form in (loss, reference)]  # noqa: B023
    assert reference.engine == "reference" and not torch.equal(values[0][1], values[1][1])
    for a, b in zip(*values, strict=True):
        assert (a - b).norm() <= 2e-5 * b.norm()


def test_small_grids_are_left_to_the_reference_form(monkeypatch):
    monkeypatch.setattr("dcd_ext.wavelets.energy.engine._MIN_VOXELS", 2048)
    monkeypatch.setattr("dcd_ext.wavelets.energy.engine.make_plan", lambda *_: pytest.fail("fast form"))
    student, teacher = random_stage((12, 13, 13), dtype=torch.float32)
    value, reference = (DCDLoss([3], [5], engine=engine)([student], [teacher]) for engine in ("fast", "reference"))
    assert torch.equal(value, reference)
    with pytest.raises(pytest.fail.Exception, match="fast form"):
        DCDLoss([3], [5])(*([x] for x in random_stage((13, 13, 13), dtype=torch.float32)))


@pytest.mark.parametrize("mode", ["zero", "symmetric"])
def test_sum_over_stages(mode):
    stages = [random_stage((16, 14, 15), student=2, teacher=4), random_stage((8, 7, 7), student=4, teacher=6)]
    student, teacher = [s for s, _ in stages], [t for _, t in stages]
    loss = DCDLoss([2, 4], [4, 6], "db2", 1, mode).double()
    value = loss(student, teacher)
    expected = [
        direct_loss(s, t, p, "db2", 1, mode, KEYS) for s, t, p in zip(student, teacher, loss.projections, strict=True)
    ]
    torch.testing.assert_close(value, sum(expected))
    assert len(loss.stage_losses) == 2
    assert not any(x.requires_grad for x in loss.stage_losses)
    torch.testing.assert_close(loss.stage_losses, tuple(x.detach() for x in expected))


@pytest.mark.parametrize("mode", ["zero", "symmetric"])
def test_per_level(mode):
    student, teacher = random_stage((17, 14, 16))
    loss = DCDLoss([3], [5], "db2", 3, mode, level_reduction="per_level", cap_levels=False).double()
    error, means = loss.projections[0](student) - teacher, []
    for _ in range(3):
        low, bands = ptwt.wavedec3(error, "db2", mode=mode, level=1)
        bands["ddd"] = torch.zeros_like(bands["ddd"])
        d, h, w = error.shape[2:]
        means.append(ptwt.waverec3((torch.zeros_like(low), bands), "db2")[..., :d, :h, :w].square().mean())
        error = low
    torch.testing.assert_close(loss([student], [teacher]), sum(means) / 3)


@pytest.mark.parametrize(("bands", "keys"), [("directional", KEYS), ("approximation", ["aaa"]), ("all", None)])
def test_without_reconstruction(bands, keys):
    student, teacher = random_stage((17, 14, 16))
    loss = DCDLoss([3], [5], "db2", 2, "periodic", bands, reconstruct=False).double()
    low, *levels = ptwt.wavedec3(loss.projections[0](student) - teacher, "db2", mode="periodic", level=2)
    kept = [v for level in levels for k, v in level.items() if keys is None or k in keys]
    kept += [low] if keys is None or "aaa" in keys else []
    expected = torch.cat([v.flatten() for v in kept]).square().mean()
    torch.testing.assert_close(loss([student], [teacher]), expected)


def test_cap_levels_follows_the_shortest_side():
    loss = DCDLoss([1] * 4, [1] * 4, projection="identity")
    features = [torch.randn(1, 1, n, 64, 64) for n in (56, 28, 14, 5)]
    loss(features, [f + 1 for f in features])
    assert loss.stage_levels == [3, 2, 1, 1]
    uncapped = DCDLoss([1], [1], projection="identity", cap_levels=False)
    uncapped(features[3:], features[3:])
    assert uncapped.stage_levels == [3]


@pytest.mark.parametrize(
    "options", [{}, {"mode": "symmetric"}, {"level_reduction": "per_level"}, {"reconstruct": False}]
)
def test_gradcheck(options):
    student, teacher = random_stage((5, 4, 6), batch=1, student=2, teacher=2)
    loss = DCDLoss([2], [2], "db2", 2, cap_levels=False, **options).double()
    conv = loss.projections[0]

    def function(s, weight, bias):
        return torch.func.functional_call(
            loss, {"projections.0.weight": weight, "projections.0.bias": bias}, ([s], [teacher])
        )

    assert torch.autograd.gradcheck(function, (student, conv.weight, conv.bias))


@pytest.mark.parametrize("mode", ["zero", "symmetric"])
def test_only_student_and_projections_receive_gradients(mode):
    student, teacher = random_stage((8, 8, 8), dtype=torch.float32)
    teacher.requires_grad_()
    loss = DCDLoss([3], [5], mode=mode)
    before = teacher.detach().clone()
    loss([student], [teacher]).backward()
    assert teacher.grad is None and torch.equal(teacher, before)
    assert student.grad is not None
    assert all(p.grad is not None for p in loss.projections.parameters())


def test_frozen_projections():
    student, teacher = random_stage((8, 8, 8), dtype=torch.float32)
    loss = DCDLoss([3], [5], train_projections=False)
    loss([student], [teacher]).backward()
    assert student.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_gradients_scale_and_accumulate():
    student, teacher = random_stage((8, 8, 8), dtype=torch.float32)
    loss = DCDLoss([3], [5])
    value = loss([student], [teacher])
    value.backward(retain_graph=True)
    once = student.grad.clone()
    (0.5 * value).backward()
    torch.testing.assert_close(student.grad, 1.5 * once)


def test_without_gradients():
    student, teacher = random_stage((8, 8, 8), dtype=torch.float32)
    loss = DCDLoss([3], [5])
    with torch.inference_mode():
        inferred = loss([student], [teacher])
    with torch.no_grad():
        assert torch.equal(loss([student], [teacher]), inferred)
    value = loss([student], [teacher])
    torch.testing.assert_close(value.detach(), inferred)
    value.backward()


@pytest.mark.parametrize("mode", ["zero", "symmetric"])
def test_autocast(mode):
    student, teacher = random_stage((16, 16, 16), dtype=torch.float32)
    loss = DCDLoss([3], [5], mode=mode)
    plain = loss([student], [teacher])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss([student], [teacher]), plain)
        half = loss([student.bfloat16()], [teacher.bfloat16()])
    rounded = loss([student.bfloat16().float()], [teacher.bfloat16().float()])
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(rounded.item(), rel=1e-3)
    assert half.item() == pytest.approx(plain.item(), rel=1e-3)


def test_gradient_has_the_features_type():
    student, teacher = random_stage((8, 8, 8), dtype=torch.bfloat16)
    student = student.detach().requires_grad_()
    DCDLoss([3], [5])([student], [teacher]).backward()
    assert student.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("mode", ["zero", "symmetric"])
def test_equal_features_give_exactly_zero(mode):
    x = torch.randn(1, 4, 14, 15, 16)
    loss = DCDLoss([4], [4], mode=mode, projection="identity")
    assert loss([x], [x]).item() == 0


@pytest.mark.parametrize(("n", "size"), [(40, 1000), (64, 10000)])
@pytest.mark.parametrize("shape", ["ramp", "bump"])
def test_small_details_under_large_low_frequencies(shape, n, size):
    line = torch.linspace(0, 1, n, dtype=torch.float64)
    if shape == "bump":
        # Vanishes at the border, so that not even the zero extension makes details of it.
        line = torch.exp(-(((line - 0.5) * 9) ** 2))
    smooth = line[:, None, None] * line[None, :, None] * line[None, None, :]
    noise = torch.randn(1, 1, n, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = (size * smooth + noise).float()
    loss = DCDLoss([1], [1], "db4", 1, projection="identity")
    found = loss([error], [torch.zeros_like(error)]).item()
    exact = loss([error.double()], [torch.zeros_like(error).double()]).item()
    assert found == pytest.approx(exact, rel=1e-3)


def test_small_details_in_one_sample_of_a_batch():
    line = torch.exp(-(((torch.linspace(0, 1, 64, dtype=torch.float64) - 0.5) * 9) ** 2))
    noise = torch.randn(2, 1, 64, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise[0] += 100000 * torch.einsum("i,j,k->ijk", line, line, line)
    error = noise.float()
    loss = DCDLoss([1], [1], "db4", 1, projection="identity")
    found = loss([error], [torch.zeros_like(error)]).item()
    exact = loss([error.double()], [torch.zeros_like(error).double()]).item()
    assert found == pytest.approx(exact, rel=1e-3)


def test_construction_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = DCDLoss([2, 3], [4, 5])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    second = DCDLoss([2, 3], [4, 5])
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert set(first.state_dict()) == {f"projections.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")}
    assert first.projections[0].weight.shape == (4, 2, 1, 1, 1)


def test_metatensors():
    meta = pytest.importorskip("monai.data").MetaTensor
    student, teacher = random_stage((8, 9, 8), dtype=torch.float32)
    loss = DCDLoss([3], [5])
    value = loss([meta(student)], [meta(teacher)])
    assert type(value) is torch.Tensor
    assert torch.equal(value, loss([student], [teacher]))


def test_channels_last_features():
    student, teacher = random_stage((8, 9, 8), dtype=torch.float32)
    loss = DCDLoss([3], [5])
    last = [x.detach().to(memory_format=torch.channels_last_3d) for x in (student, teacher)]
    torch.testing.assert_close(loss([last[0]], [last[1]]), loss([student], [teacher]).detach())


@pytest.mark.parametrize(
    "options", [{}, {"mode": "symmetric"}, {"level_reduction": "per_level"}, {"reconstruct": False}]
)
def test_normalised_by_the_teachers_detail_energy(options):
    stages = [random_stage((16, 14, 15)), random_stage((5, 7, 7))]
    student, teacher = [s for s, _ in stages], [t * scale for (_, t), scale in zip(stages, (100, 1), strict=True)]
    plain = DCDLoss([3] * 2, [5] * 2, "db2", 1, **options).double()
    normalised = DCDLoss([3] * 2, [5] * 2, "db2", 1, normalize="teacher", **options).double()
    value, found = (value_and_gradients(lambda: f(student, teacher), f, student[0]) for f in (plain, normalised))  # noqa: B023
    energies = []
    for t in teacher:
        kept = details(t, "db2", 1, options.get("mode", "zero"), KEYS)
        volume = ptwt.waverec3(kept, "db2")[..., : t.shape[2], : t.shape[3], : t.shape[4]]
        coefficients = torch.cat([kept[1][key].flatten() for key in KEYS])
        energies.append((volume if options.get("reconstruct", True) else coefficients).square().mean())
    expected = [loss / energy for loss, energy in zip(plain.stage_losses, energies, strict=True)]
    torch.testing.assert_close(list(normalised.stage_losses), expected)
    torch.testing.assert_close(found[0].detach(), sum(expected))
    # a constant factor: the gradient is scaled by it, and none comes from the energy
    torch.testing.assert_close(found[1], value[1] / energies[0])
    # what teacher and student are multiplied with does not matter
    for conv in normalised.projections:
        conv.bias.data *= 7
    torch.testing.assert_close(normalised([7 * x for x in student], [7 * t for t in teacher]), found[0])


def test_a_teacher_without_details_does_not_make_the_normalised_loss_infinite():
    student, _ = random_stage((8, 8, 8), dtype=torch.float32)
    loss = DCDLoss([3], [5], normalize="teacher")
    value = loss([student], [torch.zeros(2, 5, 8, 8, 8)])
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "option out of range – levels – .*, found 0"),
        ({"mode": "mirror"}, "unknown border mode – mode – .*, found 'mirror'"),
        ({"wavelet": "nope"}, "unknown wavelet – wavelet – .*, found 'nope'"),
        ({"bands": "detail"}, "unknown subband – bands – .*, found 'detail'"),
        ({"level_reduction": "mean"}, "level_reduction – expected 'joint' or 'per_level', found 'mean' – correct"),
        ({"engine": "slow"}, "unknown option – engine – expected 'fast' or 'reference', found 'slow'"),
        ({"normalize": "student"}, "unknown option – normalize – expected None or 'teacher', found 'student'"),
        ({"projection": "linear"}, "unknown option – projection – expected 'conv' or 'identity', found 'linear'"),
        ({"projection": "identity"}, r"widths differ – projection 'identity' – .* found \(1, 1\) and \(2, 1\)"),
    ],
)
def test_unusable_options(options, message):
    with pytest.raises(UserError, match=message):
        DCDLoss([1, 1], [2, 1], **options)


def test_unusable_stages():
    with pytest.raises(ValueError, match="student and teacher need the same stages, got 2 and 1"):
        DCDLoss([1, 2], [1])
    with pytest.raises(ValueError, match="student and teacher need the same stages, got 0 and 0"):
        DCDLoss([], [])


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            [(1, 2, 4, 4, 4)],
            [(1, 4, 4, 4, 4), (1, 8, 2, 2, 2)],
            "the loss was made for 2 stages, got 1 student features",
        ),
        (
            [(1, 2, 4, 4, 4), (1, 5, 2, 2, 2)],
            [(1, 4, 4, 4, 4), (1, 8, 2, 2, 2)],
            r"student feature of stage 1 must have shape \(B, 4, X, Y, Z\), got \(1, 5, 2, 2, 2\)",
        ),
        (
            [(1, 2, 4, 4, 4), (1, 4, 2, 2, 2)],
            [(1, 4, 4, 4), (1, 8, 2, 2, 2)],
            r"teacher feature of stage 0 must have shape \(B, 4, X, Y, Z\), got \(1, 4, 4, 4\)",
        ),
        (
            [(1, 2, 4, 4, 4), (1, 4, 2, 2, 3)],
            [(1, 4, 4, 4, 4), (1, 8, 2, 2, 2)],
            r"stage 1: student and teacher differ in batch or grid, \(1, 2, 2, 3\) and \(1, 2, 2, 2\)",
        ),
    ],
)
def test_unusable_features(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        DCDLoss([2, 4], [4, 8])([torch.zeros(s) for s in student], [torch.zeros(t) for t in teacher])


@pytest.mark.parametrize("slab", [1, 1 << 30])
def test_samples_together_and_padded_as_on_a_gpu(slab, monkeypatch):
    """Grid of the engine; values and gradients of three samples against the direct form."""
    energy = "dcd_ext.wavelets.energy"
    monkeypatch.setattr(f"{energy}.slabs._GROUP_BYTES", {"cpu": 2 * 5 * 17 * 24 * 19 * 8})
    monkeypatch.setattr(f"{energy}.slabs._SLAB_BYTES", {"cpu": slab})
    for name in ("plan", "engine"):
        monkeypatch.setattr(f"{energy}.{name}.MULTIPLE", {"cpu": 4})
    make_plan.cache_clear()
    student, teacher = random_stage((17, 24, 19), batch=3)
    loss = DCDLoss([3], [5]).double()
    found = value_and_gradients(lambda: loss([student], [teacher]), loss, student)
    expected = value_and_gradients(
        lambda: direct_loss(student, teacher, loss.projections[0], "db4", 1, "zero", KEYS), loss, student
    )
    make_plan.cache_clear()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("wavelet", "mode"), [("db4", "zero"), ("bior2.2", "symmetric")])
def test_one_matrix_on_a_small_grid(wavelet, mode, monkeypatch):
    """Any wavelet and border: the dense map against the direct form."""
    monkeypatch.setattr("dcd_ext.wavelets.energy.dense._MAX_VOXELS", {"cpu": 1024})
    student, teacher = random_stage((9, 10, 11))
    loss = DCDLoss([3], [5], wavelet=wavelet, mode=mode, levels=1).double()
    monkeypatch.setattr("dcd_ext.wavelets.energy.engine.detail_error", lambda *_: pytest.fail("reference form"))
    found = value_and_gradients(lambda: loss([student], [teacher]), loss, student)
    expected = value_and_gradients(
        lambda: direct_loss(student, teacher, loss.projections[0], wavelet, 1, mode, KEYS), loss, student
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
