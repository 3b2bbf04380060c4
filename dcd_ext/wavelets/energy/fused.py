"""A slab of ``E = W F_S + b - F_T`` and what is needed of it, in one pass over the features; for CUDA, by Triton.

Written as single products, ``E`` would be read four more times from the device's memory.
"""

import torch

from dcd_ext.kernels import works

# Wider features are a small part of the cost, and their tiles would not stay in registers.
_MAX_CHANNELS, _MAX_INPUTS = 64, 32
_PROGRAMS = 512


def is_fusible(student: torch.Tensor, teacher: torch.Tensor, mixing: torch.Tensor) -> bool:
    """Whether :func:`error_slab` takes these features: narrow ones of contiguous planes, on a device with Triton."""
    narrow = mixing.shape[0] <= _MAX_CHANNELS and mixing.shape[1] <= _MAX_INPUTS and mixing.dtype == torch.float32
    planes = all(x.stride()[3:] == (x.shape[4], 1) for x in (student, teacher))
    return narrow and planes and works(_try, mixing.device, "the wavelet loss")


def _try(device: torch.device) -> None:
    features = [torch.zeros(1, channels, 1, 4, 4, device=device) for channels in (1, 1, 4, 1)]
    student, teacher, inputs, error = features
    slab = inputs[:, :, 0], error[:, :, 0], torch.empty_like(student)
    error_slab(student, teacher, torch.zeros(1, 4, device=device), slice(0, 1), *slab)


def error_slab(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mixing: torch.Tensor,
    part: slice,
    inputs: torch.Tensor,
    error: torch.Tensor,
    grad_student: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``|E|²`` in float64 and ``E [F_S; 1]^T`` (C_T, C_S + 1) of the planes ``part``.

    Args:
        student, teacher, mixing: see :func:`dcd_ext.wavelets.energy.slabs.group_energy`.
        part: planes along the depth.
        inputs: overwritten with [F_S; 1], (s, B·narrow, H, W).
        error: overwritten with E, (s, B·C_T, H, W).
        grad_student: (B, C_S, D, H, W), of which the planes ``part`` are overwritten with ``W^T E``.
    """
    import triton

    from dcd_ext.wavelets.energy.fused_kernel import kernel

    samples, (wide, narrow) = len(teacher), mixing.shape
    half = all(x.dtype.itemsize == 2 for x in (student, teacher))
    rows, columns = max(16, triton.next_power_of_2(wide)), max(16, triton.next_power_of_2(narrow))
    squares = mixing.new_empty(samples, _PROGRAMS, rows)
    outer = mixing.new_empty(samples, _PROGRAMS, rows, columns)
    kernel[(_PROGRAMS, samples)](
        student,
        teacher,
        mixing,
        inputs,
        error,
        grad_student,
        squares,
        outer,
        part.start,
        part.stop - part.start,
        teacher.shape[3] * teacher.shape[4],
        *student.stride()[:3],
        *teacher.stride()[:3],
        *grad_student.stride()[:3],
        C_S=student.shape[1],
        C_T=wide,
        NARROW=narrow,
        ROWS=rows,
        COLUMNS=columns,
        BLOCK=(4096 if half else 2048) // rows,
        PRECISION="tf32" if half else "tf32x3",
        num_warps=4 if half else 8,
    )
    found = outer.flatten(0, 1).sum(0)[:wide, :narrow]
    return squares.sum(dtype=torch.float64), found
