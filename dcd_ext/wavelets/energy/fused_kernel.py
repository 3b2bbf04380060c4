"""The kernel of :mod:`dcd_ext.wavelets.energy.fused`; imported only where Triton is installed."""

# mypy: ignore-errors
import triton
import triton.language as tl


@triton.jit
def nearest(x):
    """float32 rounded to the 11 bits of TensorFloat-32; products cut the rest off, which would shrink all sums."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def kernel(
    student,
    teacher,
    mixing,
    inputs,
    error,
    grad_student,
    squares,
    outer,
    first,
    planes,
    voxels,
    student_b,
    student_c,
    student_d,
    teacher_b,
    teacher_c,
    teacher_d,
    grad_b,
    grad_c,
    grad_d,
    C_S: tl.constexpr,
    C_T: tl.constexpr,
    NARROW: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Every program goes through blocks of a sample's voxels and keeps its own sums over them.

    ROWS and COLUMNS are C_T and NARROW, rounded up to what a matrix product takes. The PRECISION "tf32" rounds what a
    product reads to 11 bits: half-precision features have no more, and W is read as a sum of two such numbers.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    sample, samples = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    c, k = tl.arange(0, ROWS)[:, None].to(tl.int64), tl.arange(0, COLUMNS).to(tl.int64)
    weight = tl.load(mixing + c * NARROW + k[None, :], mask=(c < C_T) & (k[None, :] < NARROW), other=0.0)
    high = weight.to(tl.bfloat16).to(tl.float32)
    transposed = tl.trans(nearest(weight) if PRECISION == "tf32" else weight)
    k = k[:, None]
    square = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    blocks = tl.cdiv(voxels, BLOCK)
    for i in range(program, planes * blocks, programs):
        plane = i // blocks
        depth = (first + plane).to(tl.int64)
        v = (i % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
        inside = v < voxels
        place = student + sample * student_b + k * student_c + depth * student_d + v
        s = tl.load(place, mask=(k < C_S) & inside, other=0.0).to(tl.float32)
        s = tl.where((k == C_S) & inside, 1.0, s)
        place = teacher + sample * teacher_b + c * teacher_c + depth * teacher_d + v
        t = tl.load(place, mask=(c < C_T) & inside, other=0.0).to(tl.float32)
        if PRECISION == "tf32":
            e = tl.dot(weight - high, s, tl.dot(high, s, -t, input_precision=PRECISION), input_precision=PRECISION)
        else:
            e = tl.dot(weight, s, -t, input_precision=PRECISION)
        slab = plane.to(tl.int64) * samples + sample
        tl.store(inputs + (slab * NARROW + k) * voxels + v, s, mask=(k < NARROW) & inside)
        tl.store(error + (slab * C_T + c) * voxels + v, e, mask=(c < C_T) & inside)
        square += tl.sum(e * e, axis=1)
        if PRECISION == "tf32":
            e = nearest(e)
        sums = tl.dot(e, tl.trans(s), sums, input_precision=PRECISION)
        g = tl.dot(transposed, e, input_precision=PRECISION)
        place = grad_student + sample * grad_b + k * grad_c + depth * grad_d + v
        tl.store(place, g, mask=(k < C_S) & inside)
    part = sample * programs + program
    tl.store(squares + part * ROWS + tl.arange(0, ROWS), square)
    tl.store(outer + (part * ROWS + c) * COLUMNS + tl.arange(0, COLUMNS)[None, :], sums)
