"""The kernels of ``norms``; imported only where Triton is installed.

Features lie as (sample, voxel, channel). The sums are those of differences to a channel's first voxel, so that a mean
that is large beside the deviation costs no digits.
"""

# mypy: ignore-errors
import triton
import triton.language as tl


@triton.jit
def sums(x, moments, voxels, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of differences and of their squares over the voxels of each program: (2, samples, programs, channels)."""
    program, programs, sample, samples = tl.program_id(0), tl.num_programs(0), tl.program_id(1), tl.num_programs(1)
    c = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    x += sample.to(tl.int64) * voxels * channels
    origin = tl.load(x + c, mask=c < channels, other=0.0).to(tl.float32)
    first = tl.zeros((COLUMNS,), tl.float32)
    second = tl.zeros((COLUMNS,), tl.float32)
    for start in range(program * ROWS, voxels, programs * ROWS):
        v = (start + tl.arange(0, ROWS))[:, None]
        inside = (v < voxels) & (c[None, :] < channels)
        value = tl.load(x + v.to(tl.int64) * channels + c[None, :], mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - origin[None, :], 0.0)
        first += tl.sum(value, axis=0)
        second += tl.sum(value * value, axis=0)
    place = moments + (sample * programs + program) * channels + c
    tl.store(place, first, mask=c < channels)
    tl.store(place + samples * programs * channels, second, mask=c < channels)


@triton.jit
def apply(
    x, moments, weight, bias, result, eps, voxels, channels,
    AFFINE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Normalise: every program first adds up the sums of all."""
    program, programs, sample, samples = tl.program_id(0), tl.num_programs(0), tl.program_id(1), tl.num_programs(1)
    c = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.zeros((COLUMNS,), tl.float32)
    second = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, programs, 32):
        p = (start + tl.arange(0, 32))[:, None]
        inside = (p < programs) & (c[None, :] < channels)
        place = moments + (sample * programs + p) * channels + c[None, :]
        first += tl.sum(tl.load(place, mask=inside, other=0.0), axis=0)
        second += tl.sum(tl.load(place + samples * programs * channels, mask=inside, other=0.0), axis=0)
    offset = sample.to(tl.int64) * voxels * channels
    x += offset
    result += offset
    mean = first / voxels
    scale = 1 / tl.sqrt(tl.maximum(second / voxels - mean * mean, 0.0) + eps)
    shift = tl.zeros((COLUMNS,), tl.float32)
    if AFFINE:
        scale *= tl.load(weight + c, mask=c < channels, other=0.0).to(tl.float32)
        shift += tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    mean += tl.load(x + c, mask=c < channels, other=0.0).to(tl.float32)
    for start in range(program * ROWS, voxels, programs * ROWS):
        v = (start + tl.arange(0, ROWS))[:, None]
        inside = (v < voxels) & (c[None, :] < channels)
        place = v.to(tl.int64) * channels + c[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        value = (value - mean[None, :]) * scale[None, :] + shift[None, :]
        tl.store(result + place, value.to(result.dtype.element_ty), mask=inside)
