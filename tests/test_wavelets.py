"""DetailProjection against PyWavelets: decompose, zero the other subbands, reconstruct, crop."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import pywt
import torch

from dcd_ext.errors import UserError
from dcd_ext.wavelets import DetailProjection
from dcd_ext.wavelets.axis_maps import analysis_matrix, synthesis_matrix

# odd, mixed and tiny; some shorter than the filter, some no multiple of 2^levels (reflection needs sides above 1)
SIDES = [(5, 6, 7), (31, 7, 5), (16, 33, 5), (14, 16, 23)]
MODES = ["zero", "symmetric", "reflect", "periodic", "constant"]
KEYS = ["aad", "ada", "daa", "add", "dad", "dda"]


def pywt_projection(x: torch.Tensor, wavelet: str, levels: int, mode: str, keys: list[str]) -> torch.Tensor:
    """The oracle, by PyWavelets' public functions alone."""
    axes = (-3, -2, -1)
    with warnings.catch_warnings():
        # PyWavelets advises against this many levels on short sides
        warnings.simplefilter("ignore", UserWarning)
        low, *details = pywt.wavedecn(x.numpy(), wavelet, mode, levels, axes)
    low = low if "aaa" in keys else np.zeros_like(low)
    details = [{k: v if k in keys else np.zeros_like(v) for k, v in level.items()} for level in details]
    full = pywt.waverecn([low, *details], wavelet, mode, axes)
    return torch.from_numpy(full[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_equals_pywavelets(sides, wavelet, mode):
    x = torch.randn(2, 1, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for levels in (1, 2, 3):
        expected = pywt_projection(x, wavelet, levels, mode, KEYS)
        project = DetailProjection(wavelet, levels, mode)
        torch.testing.assert_close(project(x), expected, rtol=0, atol=1e-10)
        single = project(x.float())
        assert single.dtype == torch.float32
        assert (single - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("bands", "keys"),
    [
        ("approximation", ["aaa"]),
        ("diagonal", ["ddd"]),
        ("directional", KEYS),
        (("aad", "daa"), ["aad", "daa"]),
        ("add", ["add"]),
        (("aaa", "dda", "ddd"), ["aaa", "dda", "ddd"]),
        (["aaa", *KEYS], ["aaa", *KEYS]),
    ],
)
@pytest.mark.parametrize(("mode", "wavelet"), [("zero", "db2"), ("symmetric", "bior2.2"), ("periodic", "bior2.2")])
def test_bands(bands, keys, mode, wavelet):
    x = torch.randn(1, 2, 16, 11, 14, dtype=torch.float64)
    expected = pywt_projection(x, wavelet, 2, mode, keys)
    torch.testing.assert_close(DetailProjection(wavelet, 2, mode, bands)(x), expected, rtol=0, atol=1e-10)


def test_all_bands_return_the_input():
    x = torch.randn(1, 1, 5, 7, 4)
    assert torch.equal(DetailProjection(bands="all")(x), x)


@pytest.mark.parametrize("shape", [(5, 7, 8), (2, 5, 7, 8), (2, 1, 3, 5, 7, 8)])
def test_leading_dimensions(shape):
    x = torch.randn(shape, dtype=torch.float64)
    project = DetailProjection("db2", 2)
    one_by_one = torch.stack([project(v[None, None])[0, 0] for v in x.reshape(-1, 5, 7, 8)]).reshape(shape)
    torch.testing.assert_close(project(x), one_by_one)


def test_layout_of_the_input_does_not_matter():
    x = torch.randn(2, 4, 6, 7, 8)
    project = DetailProjection("db2", 1)
    torch.testing.assert_close(project(x.to(memory_format=torch.channels_last_3d)), project(x))


@pytest.mark.parametrize("mode", MODES)
def test_backward_is_the_transpose(mode):
    x = torch.randn(1, 1, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DetailProjection("db2", 2, mode), (x,))


@pytest.mark.parametrize("side", [5, 16, 21])
def test_synthesis_of_orthogonal_wavelets_is_the_transpose_of_analysis(side):
    """With zero extension, for every wavelet that PyWavelets calls orthogonal: the fast energy relies on it."""
    for wavelet in (name for name in pywt.wavelist(kind="discrete") if pywt.Wavelet(name).orthogonal):
        for level, letter in ((1, "a"), (1, "d"), (2, "d"), (3, "a")):
            analysis, synthesis = (f(side, wavelet, "zero", level, letter) for f in (analysis_matrix, synthesis_matrix))
            np.testing.assert_allclose(synthesis.T, analysis, atol=1e-12, err_msg=f"{wavelet}, {level} {letter}")


def test_constant_vanishes_inside():
    x = torch.ones(1, 1, 32, 32, 32, dtype=torch.float64)
    inside = DetailProjection("db4", 1)(x)[..., 8:-8, 8:-8, 8:-8]
    assert inside.abs().max() < 1e-10


def test_half_precision_is_computed_in_single():
    x = torch.randn(1, 1, 16, 16, 16).bfloat16()
    project = DetailProjection()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(project(x), project(x.float()).bfloat16())


def test_usable_after_a_call_in_inference_mode():
    project = DetailProjection("db3", 1)
    with torch.inference_mode():
        project(torch.zeros(1, 1, 9, 9, 9))
    x = torch.randn(1, 1, 9, 9, 9, requires_grad=True)
    project(x).square().sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "mirror"}, "unknown border mode – mode – expected one of zero, symmetric, .*, found 'mirror' – "),
        ({"wavelet": "db99"}, "unknown wavelet – wavelet – expected a discrete wavelet .* found 'db99' – "),
        ({"bands": "detail"}, "unknown subband – bands – expected directional, .*, found 'detail' – "),
        ({"bands": ("aad", "xyz")}, "unknown subband – bands – .*, found 'xyz' – "),
        ({"bands": ()}, "unknown subband – bands – .*, found None – "),
        ({"levels": 0}, "option out of range – levels – expected a whole number from 1, found 0 – "),
    ],
)
def test_errors(options, message):
    with pytest.raises(UserError, match=message):
        DetailProjection(**options)


@pytest.mark.parametrize("x", [torch.zeros(4, 4), torch.zeros(1, 1, 4, 4, 4, dtype=torch.int64)], ids=["2D", "int"])
def test_unusable_input(x):
    with pytest.raises(ValueError, match=r"input must be a real floating tensor \(\.\.\., D, H, W\), got \("):
        DetailProjection()(x)
