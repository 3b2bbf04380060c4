"""What would happen on a GPU, seen without one."""

import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import nn

from dcd_ext.inference import windows
from dcd_ext.recording import Recordings


def test_a_computation_without_memory_is_tried_again_when_its_first_try_is_freed(monkeypatch):
    """A handled error keeps its frames, and with them all activations."""
    for name, value in {"device": nullcontext, "is_current_stream_capturing": bool, "empty_cache": bool}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    activations, alive = weakref.WeakSet(), []

    def compute(_):
        alive.append(len(activations))
        features = nn.Identity()
        activations.add(features)
        if len(alive) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ("scores",)

    found = Recordings(1)(compute, "a network", SimpleNamespace(device=torch.device("cuda:0"), shape=(), dtype=None))
    assert found == ("scores",) and alive == [0, 0]


def test_half_precision_features_lie_channels_last_also_those_of_one_channel(monkeypatch):
    monkeypatch.setattr(windows, "has_fast_norms", lambda _: True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    inferer = windows.SlidingWindowInferer((8, 8, 8))
    for channels in (1, 3):
        network = nn.Conv3d(channels, 8, 3)
        with torch.no_grad():
            features = inferer._replay(network, (), torch.zeros(2, channels, 8, 8, 8))
        assert features.is_contiguous(memory_format=torch.channels_last_3d)
