"""On a GPU: the wavelet loss of several samples at once, in the products of the tensor cores, without waiting.

``DCD_DEVICE=cpu`` runs them without one, to see that they run.
"""

import os

import pytest
import torch

from dcd_ext.losses import DCDLoss, FitNetLoss
from dcd_ext.wavelets.energy import engine
from tests.losses.test_dcd import direct_loss, random_stage

DEVICE = os.environ.get("DCD_DEVICE") or ("cuda:0" if torch.cuda.is_available() else "")
KEYS = ["aad", "ada", "daa", "add", "dad", "dda"]
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not DEVICE, reason="no CUDA device")]


@pytest.fixture(autouse=True)
def _nothing_recorded():
    """What is recorded knows no size of slabs."""
    engine._recordings.clear()


def relative(found, expected):
    found, expected = (x.detach().double().cpu() for x in (found, expected))
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-3)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [1, 1 << 30])
def test_values_and_gradients_equal_the_direct_forms(dtype, bound, batch, size, monkeypatch):
    """Of the same rounded features in float64 on the CPU; plane by plane and sample by sample, or all together."""
    for name in ("_SLAB_BYTES_ELSEWHERE", "_GROUP_BYTES_ELSEWHERE"):
        monkeypatch.setattr(f"dcd_ext.wavelets.energy.slabs.{name}", size)
    student, teacher = random_stage((29, 24, 31), batch=batch, dtype=dtype)
    loss = DCDLoss([3], [5])
    projection = torch.nn.Conv3d(3, 5, 1, dtype=torch.float64)
    projection.load_state_dict(loss.projections[0].state_dict())
    exact = student.detach().double().requires_grad_()
    value = direct_loss(exact, teacher.double(), projection, "db4", 1, "zero", KEYS)
    expected = [value, *torch.autograd.grad(value, [exact, *projection.parameters()])]
    loss.to(DEVICE)
    own = student.detach().to(DEVICE).requires_grad_()
    others = [(torch.randn_like(own), torch.randn_like(teacher)) for _ in range(2)]
    for features in (*others, (own, teacher)):  # computed, recorded, replayed
        with torch.autocast(torch.device(DEVICE).type, enabled=dtype != torch.float32):
            found = loss([features[0].requires_grad_()], [features[1].to(DEVICE)])
    assert loss.stage_levels == [1]
    # scaled as by a gradient scaler: float16 would not hold such small gradients
    gradients = torch.autograd.grad(1024 * found, [own, *loss.projections[0].parameters()])
    found = [found, *(g.double() / 1024 for g in gradients)]
    # the student's gradient comes back in its own type
    # and that of the bias is a small rest of a sum
    half = dtype != torch.float32
    bounds = [1e-4 if half else bound, 8e-3 if dtype == torch.bfloat16 else bound, bound, 3e-2 if half else 1e-4]
    errors = [relative(f, e) for f, e in zip(found, expected, strict=True)]
    assert all(error < most for error, most in zip(errors, bounds, strict=True)), errors


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("make", [DCDLoss, FitNetLoss])
def test_a_step_does_not_wait_for_the_device(make):
    student, teacher = (x.detach().to(DEVICE) for x in random_stage((24, 24, 24), dtype=torch.float32))
    student.requires_grad_()
    loss = make([3], [5]).to(DEVICE)
    for _ in range(3):  # seen, recorded, replayed
        loss([student], [teacher]).backward()
    try:
        if "cuda" in DEVICE:
            torch.cuda.set_sync_debug_mode("error")
        loss([student], [teacher]).backward()
    finally:
        if "cuda" in DEVICE:
            torch.cuda.set_sync_debug_mode("default")


def test_a_small_share_of_details_is_seen_in_the_step_after(monkeypatch):
    """Smooth features that vanish at the border: float32 would lose their energy in a difference."""
    calls = []
    reference = engine._reference_mean
    monkeypatch.setattr(engine, "_reference_mean", lambda *x: calls.append(x) or reference(*x))
    axes = [torch.sin(torch.linspace(0, torch.pi, n, dtype=torch.float64)) ** 6 for n in (32, 36, 40)]
    smooth = torch.einsum("i,j,k->ijk", *axes)[None, None]
    noise = 1e-4 * torch.randn(smooth.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student, teacher = -0.7 * smooth, 0.3 * smooth + noise
    loss = DCDLoss([1], [1], levels=1, projection="identity").to(DEVICE)
    exact = DCDLoss([1], [1], levels=1, projection="identity", engine="reference")([student], [teacher]).item()
    for steps in range(1, 4):
        value = loss([student.to(DEVICE, torch.float32)], [teacher.to(DEVICE, torch.float32)]).item()
        assert value == pytest.approx(exact, rel=1e-3) and len(calls) == steps
    rough = torch.randn(smooth.shape, device=DEVICE)
    found = [loss([rough], [0 * rough]).item() for _ in range(2)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    # a GPU takes the reference once more
    assert len(calls) == (4 if "cuda" in DEVICE else 3)
