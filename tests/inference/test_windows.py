"""On a GPU: sliding windows of a recorded network.

``DCD_DEVICE=cpu`` runs the tests without one, to see that they run.
"""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import monai.inferers
import pytest
import torch
from torch import nn

from dcd_ext import recording
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


class Waits(nn.Module):
    """Asks the CPU for a number, which no recording survives."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x) * float(x.mean() * 0 + 2)


@pytest.fixture(autouse=True)
def recording_again():
    yield
    recording._FAILED.clear()


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
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        expected = 2 * monai.inferers.SlidingWindowInferer(**WINDOW)(data, network)
        torch.testing.assert_close(inferer(data, Waits(network)), expected)
        torch.testing.assert_close(inferer(data, network), expected / 2)
    torch.manual_seed(1)
    first = image(8)
    torch.manual_seed(1)
    torch.testing.assert_close(image(8), first)  # random numbers go on after a recording that failed
    if "cuda" in DEVICE:
        assert sum("is not recorded" in record.message for record in caplog.records) == 1


def test_what_was_recorded_before_another_failed_is_replayed(network):
    network.layers[2] = nn.Dropout(0.5).train()  # a recording that draws random numbers
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        before = inferer(data, network)
        inferer(data, Waits(network))
        network.calls = 0
        assert (inferer(data, network) != before).any()
    if "cuda" in DEVICE:
        assert network.calls == 0


def test_more_than_one_output_is_computed(network):
    class Two(nn.Module):
        def forward(self, x):
            scores = network(x)
            return {"scores": scores, "twice": 2 * scores}

    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        found, expected = inferer(data, Two()), monai.inferers.SlidingWindowInferer(**WINDOW)(data, network)
        torch.testing.assert_close(found, {"scores": expected, "twice": 2 * expected})


def test_hooks_are_called_and_coordinates_passed(network):
    seen = []
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        inferer(data, network)
        handle = network.layers[0].register_forward_hook(lambda *_: seen.append(1))
        inferer(data, network)
        handle.remove()
        coordinates = SlidingWindowInferer(with_coord=True, **WINDOW)
        coordinates(data, lambda x, place: seen.append(place) or network(x))
    assert len(seen) == 27 + 27


def test_layers_that_change_their_mode_are_seen(network):
    network.layers[2] = nn.Dropout(1.0)
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        for _ in range(2):
            assert inferer(data, network).std() > 0
        network.layers[2].train()  # the last layer's bias is left
        assert inferer(data, network).std(dim=(2, 3, 4)).max() < 1e-6


def test_threads_get_their_own_scores(network):
    inferer, images = SlidingWindowInferer(**WINDOW), [image(32, 32, 32) for _ in range(8)]

    def segment(data):
        with torch.inference_mode():
            return inferer(data, network)

    expected = [segment(data) for data in images]
    with ThreadPoolExecutor(4) as pool:
        for found, scores in zip(pool.map(segment, images), expected, strict=True):
            torch.testing.assert_close(found, scores)


def test_a_copy_of_the_inferer_works(network):
    inferer, data = SlidingWindowInferer(**WINDOW), image(32, 32, 32)
    with torch.inference_mode():
        expected = inferer(data, network)
        torch.testing.assert_close(copy.deepcopy(inferer)(data, network), expected)
