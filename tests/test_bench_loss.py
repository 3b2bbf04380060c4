"""The benchmark of the wavelet loss."""

from argparse import Namespace

from dcd_ext.wavelets.energy import engine
from scripts import bench_loss


def test_memory_on_a_gpu_is_measured_without_the_recordings_of_other_stages(monkeypatch):
    """Theirs would serve this one, and be counted as there before."""
    monkeypatch.setitem(engine._recordings._known, "another stage", None)
    monkeypatch.setattr(bench_loss, "make_step", lambda *_: ())
    monkeypatch.setattr(bench_loss, "peak_extra", lambda: len(engine._recordings._known))
    assert bench_loss.measure_memory("dcd", [1], Namespace(device="cuda")) == 0
