import pytest

from dcd_ext.losses import _projections


@pytest.fixture(params=[1, 1 << 22], ids=["smallest slabs", "one slab"])
def slabs(request, monkeypatch):
    """Both ways that features can be cut into slabs."""
    monkeypatch.setattr(_projections, "_SLAB_ELEMENTS", request.param)
