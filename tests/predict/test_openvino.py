"""What is done to networks for OpenVINO: norms in another form, and which compiled networks are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops
import pytest

from dcd_ext.predict.norms import make_narrow_norms_planar
from dcd_ext.predict.runtime import OpenVINO

AXES = np.array([2, 3, 4])


def norm_of(channels: int, side: int) -> Any:
    image = ops.parameter([1, channels, side, side + 1, side + 2], np.float32)
    norm = ops.mvn(image, AXES, normalize_variance=True, eps=1e-5, eps_mode="INSIDE_SQRT")
    return openvino.Model([ops.result(norm)], [image])


@pytest.mark.parametrize(("channels", "side", "changed"), [(1, 12, 1), (4, 12, 1), (8, 12, 1), (16, 12, 0), (4, 4, 0)])
def test_narrow_norms_keep_their_values(channels: int, side: int, changed: int) -> None:
    model = norm_of(channels, side)
    assert make_narrow_norms_planar(model) == changed
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    assert kinds.count("MVN") == 1 and kinds.count("Reshape") == 2 * changed
    data = np.random.default_rng(0).normal(3, 2, (1, channels, side, side + 1, side + 2)).astype(np.float32)
    found = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data)[0]
    centred = data - data.mean(axis=(2, 3, 4), keepdims=True, dtype=np.float64)
    expected = centred / np.sqrt(np.square(centred).mean(axis=(2, 3, 4), keepdims=True) + 1e-5)
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize(("side", "compiled"), [(8, [1, 2]), (65, [1, 2, 1, 2])], ids=["small windows", "large ones"])
def test_small_networks_stay_compiled_for_one_window_and_for_several(
    side: int, compiled: list[int], tmp_path: Path
) -> None:
    openvino.save_model(norm_of(1, side), tmp_path / "network.xml")
    shape = (1, side, side + 1, side + 2)
    engine, streams = OpenVINO(tmp_path / "network.xml", shape, threads=2), []
    original = engine._compile
    engine._compile = lambda count: streams.append(count) or original(count)
    patch = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    results = [[r.copy() for r in engine.map([patch] * count, count)] for count in (1, 3, 1, 2)]
    assert streams == compiled and [len(found) for found in results] == [1, 3, 1, 2]
    assert all(np.allclose(found, results[0][0], atol=1e-5) for case in results for found in case)
