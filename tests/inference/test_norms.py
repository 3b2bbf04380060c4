"""On a GPU: the instance norms of inference. ``DCD_DEVICE=cpu`` runs the tests without one, to see that they run."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcd_ext.inference.norms import FastInstanceNorms, has_fast_norms, is_fast

DEVICE = os.environ.get("DCD_DEVICE") or ("cuda:0" if torch.cuda.is_available() else "")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not DEVICE, reason="no CUDA device")]
LAYOUT = torch.channels_last_3d


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    "shape",
    [(2, 8, 96, 80, 64), (1, 5, 3, 3, 3), (2, 80, 4, 5, 6), (1, 3, 1, 1, 2), (2, 33, 20, 20, 20), (1, 320, 8, 8, 8)],
)
def test_norms_equal_float64(shape, affine, dtype):
    """Also where the mean is a hundred times the deviation."""
    torch.manual_seed(0)
    channels = shape[1]
    # the CPU computes in half precision
    spread, mean = torch.rand(channels) + 0.1, (30 if "cuda" in DEVICE else 0) * torch.randn(channels)
    x = torch.randn(shape) * spread[:, None, None, None] + mean[:, None, None, None]
    x = x.to(DEVICE, dtype).contiguous(memory_format=LAYOUT)
    norm = nn.InstanceNorm3d(channels, affine=affine).to(DEVICE)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    parameters = [None if p is None else p.double() for p in (norm.weight, norm.bias)]
    expected = F.instance_norm(x.double(), None, None, *parameters, eps=norm.eps)
    with torch.no_grad(), FastInstanceNorms():
        found = norm(x)
    assert found.dtype == dtype
    # the CPU's own is less precise
    bound = (2e-3 if dtype == torch.float16 else 2e-2) * (1 if "cuda" in DEVICE else 4) * expected.abs().max()
    assert (found.double() - expected).abs().max() < bound
    if "cuda" in DEVICE:
        with torch.no_grad():
            assert has_fast_norms(torch.device(DEVICE)) and is_fast(x) and is_fast(found)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda x: x, {"track_running_stats": True}),
        (lambda x: x.float(), {}),
        (lambda x: x.contiguous(), {}),
    ],
    ids=["running statistics", "float32", "contiguous"],
)
def test_other_norms_stay_as_they_are(change, options):
    x = change(torch.randn(2, 8, 6, 7, 8, device=DEVICE).half().contiguous(memory_format=LAYOUT))
    norm = nn.InstanceNorm3d(8, affine=True, **options).to(DEVICE, x.dtype).eval()
    with torch.no_grad():
        expected = norm(x)
        with FastInstanceNorms():
            found = norm(x)
    assert torch.equal(found, expected)


def test_norms_of_a_training_keep_their_gradients():
    x = torch.randn(2, 8, 6, 7, 8, device=DEVICE).half().contiguous(memory_format=LAYOUT)
    norm = nn.InstanceNorm3d(8, affine=True).to(DEVICE, x.dtype)
    with FastInstanceNorms():
        norm(x).float().square().sum().backward()
    assert norm.weight.grad.abs().min() > 0
