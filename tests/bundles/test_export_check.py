"""An export whose output is not the network's is refused, and the earlier file stays."""

import math
import shutil

import pytest
import torch

from dcd_ext.bundles import export
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.errors import UserError
from tests.bundles.conftest import NAME


def write_new(_bundle, path):
    path.write_text("new")
    return path


@pytest.mark.parametrize(
    ("error", "accepted"), [(0.0, True), (0.9e-5, True), (1.1e-5, False), (math.inf, False), (math.nan, False)]
)
def test_only_a_small_difference_is_accepted(error, accepted, small, tmp_path, monkeypatch):
    root = shutil.copytree(small, tmp_path / NAME)
    (root / "models" / "model.ts").write_text("old")
    network = torch.nn.Conv3d(1, 3, 1)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    monkeypatch.setattr(BundleFolder, "network", lambda _self: network)
    # the output for the second of the two inputs differs, in one number
    outputs = [torch.zeros(1, 3, 1, 1, 1), torch.tensor([error, 0.0, 0.0]).view(1, 3, 1, 1, 1)]
    kind = export.FORMATS["torchscript"]._replace(make=write_new, run=lambda *_: outputs.pop(0))
    monkeypatch.setitem(export.FORMATS, "torchscript", kind)
    if accepted:
        ((_, difference),) = export.export(root, ["torchscript"])
        assert difference == pytest.approx(error)
    else:
        with pytest.raises(UserError, match="export differs – model.ts – expected within 1e-05, found "):
            list(export.export(root, ["torchscript"]))
    assert (root / "models" / "model.ts").read_text() == ("new" if accepted else "old")
