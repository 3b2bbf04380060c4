"""FLOPs, provenance and the detail maps of an evaluation."""

import types

import numpy as np
import torch
from torch import nn

from dcd_ext.evaluation import DetailMaps, count_flops, dataset_record, network_record
from dcd_ext.evaluation.feature_maps import detail_map
from dcd_ext.io import sha256, write_json
from dcd_ext.wavelets import DetailProjection
from tests.conftest import ToyNet


def test_flops_of_a_convolution_and_the_network_is_left_alone():
    network = nn.Conv3d(2, 3, 3, padding=1)
    assert count_flops(network, [2, 4, 5, 6]) == 2 * (4 * 5 * 6) * 27 * 2 * 3
    assert network.training and network.weight.device.type == "cpu"


class NeedsNumbers(nn.Module):
    def forward(self, x):
        return x if x.sum().item() > 0 else -x


def test_no_flops_for_a_network_that_looks_at_its_data():
    assert count_flops(NeedsNumbers(), [1, 4, 4, 4]) is None


def test_records(tmp_path):
    torch.save({}, tmp_path / "model.pt")
    record = network_record(ToyNet(), str(tmp_path / "model.pt"), None)
    assert record["parameters"] == sum(p.numel() for p in ToyNet().parameters())
    assert len(record["weights_sha256"]) == 64 and "patch" not in record
    assert dataset_record(None) == dataset_record(str(tmp_path)) == {}
    write_json({"name": "n", "modality": {"10": "c", "9": "b", "0": "a"}}, tmp_path / "datalist.json")
    record = dataset_record(str(tmp_path))
    assert record.pop("datalist_sha256", None) == sha256(tmp_path / "datalist.json")
    assert record == {"task": "n", "modalities": ["a", "b", "c"], "dataset_dir": str(tmp_path)}


def test_detail_maps_are_those_of_the_stages(tmp_path):
    network, batch = ToyNet(), [{"image": torch.rand(1, 20, 18, 16), "case": "first"}]
    handler = DetailMaps(str(tmp_path), network, ["encoder.stages.0", "encoder.stages.1"], [16, 16, 16])
    engine = types.SimpleNamespace(state=types.SimpleNamespace(batch=batch, device="cpu"))
    handler(engine)
    assert network.training and network.head_calls == 0
    with torch.no_grad():
        stages = network.eval().encoder(batch[0]["image"][None, :, 2:18, 1:17])
    with np.load(tmp_path / "detail_maps.npz") as content:
        assert str(content["case"]) == "first" and content["image"].shape == (1, 16, 16)
        for i, features in enumerate(stages):
            # 16 voxels allow one level of db4, 8 voxels the least there is: one
            expected = DetailProjection("db4", 1)(features)[0].square().mean(0).sqrt()
            assert np.allclose(content[f"stage_{i}"], expected[..., expected.shape[-1] // 2], atol=1e-5)


def test_a_constant_has_hardly_any_detail_inside():
    assert detail_map(torch.ones(3, 40, 40, 40), levels=1)[16:24, 16:24, 16:24].max() < 1e-5
