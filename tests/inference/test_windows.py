"""On a GPU: sliding windows of a recorded network.

``DCD_DEVICE=cpu`` runs the tests without one, to see that they run.
"""

import copy
import os

import monai.inferers
import pytest
import torch
from torch import nn

from dcd_ext.inference.windows import SlidingWindowInferer

DEVICE = os.environ.get("DCD_DEVICE") or ("cuda:0" if torch.cuda.is_available() else "")
KIND = DEVICE.partition(":")[0]
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not DEVICE, reason="no CUDA device")]
WINDOW = {"roi_size": (16, 16, 16), "overlap": 0.5, "mode": "gaussian"}


class Counting(nn.Module):
    """How often Python came by."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.ReLU(), nn.Conv3d(8, 3, 1))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layers(x)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Counting().to(DEVICE).eval()


def image(*sides):
    return torch.randn(1, 1, *sides, device=DEVICE)


@pytest.mark.parametrize("half", [False, True])
def test_scores_are_those_of_monai_s_inferer(network, half):
    own, monais = (
        cls(sw_batch_size=2, **WINDOW) for cls in (SlidingWindowInferer, monai.inferers.SlidingWindowInferer)
    )
    with torch.inference_mode(), torch.autocast(KIND, torch.bfloat16 if KIND == "cpu" else None, half):
        # 27 and 12 windows: whole batches, and a shorter last one
        for data in (image(32, 32, 32), image(24, 32, 32), image(32, 32, 32)):
            expected = monais(data, network)
            network.calls = 0
            found = own(data, network)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 if half else 1e-5)
    if "cuda" in DEVICE:
        assert network.calls == 1 + 1  # of the third image the shorter batch is recorded: once to warm up


def test_weights_that_change_and_weights_that_move_are_seen(network):
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        before = inferer(data, network)
    with torch.no_grad():
        network.layers[3].bias += 1
    with torch.inference_mode():
        torch.testing.assert_close(inferer(data, network), before + 1)
    other = copy.deepcopy(network.state_dict())
    other["layers.3.bias"] += 1
    network.load_state_dict(other, assign=True)
    with torch.inference_mode():
        torch.testing.assert_close(inferer(data, network), before + 2)


def test_what_cannot_be_recorded_is_computed(network, caplog):
    class Waits(nn.Module):
        def forward(self, x):
            return network(x) * float(x.mean() * 0 + 2)

    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        expected = 2 * monai.inferers.SlidingWindowInferer(**WINDOW)(data, network)
        torch.testing.assert_close(inferer(data, Waits()), expected)
        torch.testing.assert_close(inferer(data, network), expected / 2)
    if "cuda" in DEVICE:
        assert sum("is not recorded" in record.message for record in caplog.records) == 1


def test_a_copy_of_the_inferer_works(network):
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        expected = inferer(data, network)
        torch.testing.assert_close(copy.deepcopy(inferer)(data, network), expected)
