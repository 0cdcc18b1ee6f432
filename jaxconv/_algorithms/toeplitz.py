"""Banded Toeplitz matrices: kernels of tens to hundreds of taps along one axis, with few channels.

The outputs are cut into blocks of ``B``, and the input likewise into blocks of ``H = B * stride`` samples. A block of
outputs and what it reads are a product with the matrix whose column i is the kernel, shifted by i times the stride::

    y[j B + i] = sum_r x[j H + r] T[r, i]

All blocks share one matrix, so that the whole convolution is a matrix product, which runs at the machine's full rate.

Along the last axis the ``P`` blocks of input that a block of outputs reads are not gathered, since they overlap: each
is multiplied by all parts of the matrix, and ``P`` shifted parts of that product are added up::

    y[j B + i] = sum_{p, r} x[(j + p) H + r] T[p H + r, i]

Along another axis the ``R = (B - 1) stride + K`` samples that a block of outputs reads are a matrix already, of R rows,
and T multiplies it from the left where it stands.

What is large is computed in parts that stay in the caches.

Cost: ``P H`` (``R``) multiply-adds for each output and pair of channels: with a block as long as the kernel twice those
of the definition, at the rate of a matrix product instead of that of a convolution with one channel.

Error: that of a sum of N products, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy and Stability
of Numerical Algorithms*, 2002, section 3.1): the products with the zeros of the matrix add nothing to it.
"""

import functools

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _one_axis, _windows
from jaxconv._cost import Cost, direct_cost, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

# Shorter blocks make poor matrix products, longer ones waste more of them.
BLOCKS = (16, 32, 64, 128, 256)
# What comes with each output of a part, and with each row of a stretch, costs as much as so many multiply-adds.
OUTPUT = 32
ROW = 48
# The matrix for all pairs of channels has at most this many elements.
MAX_MATRIX = 1 << 22
# Series whose parts have more than WHOLE bytes together are convolved in chunks of about CHUNK bytes.
WHOLE = 12 * 2**20
CHUNK = 2 * 2**20


def _parts(problem: Problem, block: int) -> int:
    """Return how many blocks of input the outputs of one block need (for a one-dimensional problem)."""
    return -(-_read(problem, block) // (block * problem.spec.strides[0]))


def _read(problem: Problem, block: int) -> int:
    """Return how many samples the outputs of one block read (of a one-dimensional problem)."""
    return (block - 1) * problem.spec.strides[0] + problem.kernel_shape[0]


def _rows_of_matrix(problem: Problem, block: int, columns: int) -> int:
    """Return how many rows the matrix has: as many as a block reads, or filled up to whole blocks."""
    return _read(problem, block) if columns else _parts(problem, block) * block * problem.spec.strides[0]


def _matrix_size(problem: Problem, block: int, columns: int) -> int:
    rows = _rows_of_matrix(problem, block, columns)
    return problem.groups * problem.in_channels * problem.out_channels * rows * block


def _block(problem: Problem, columns: int) -> int:
    """Return the length of a block that makes the least work."""

    def work(block: int) -> float:
        if columns:
            return -(-problem.outputs // block) * _read(problem, block) * (block + ROW)
        return _parts(problem, block) * (block * problem.spec.strides[0] * problem.in_channels + OUTPUT)

    block = min(BLOCKS, key=work)
    return min(block, problem.outputs) if columns else block


def _tile(problem: Problem, block: int, columns: int) -> int:
    """Return how many columns to multiply at a time."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    return min(columns, max(CHUNK // (itemsize * _read(problem, block)), _one_axis.COLUMNS))


def _at_a_time(problem: Problem, block: int) -> tuple[int, int]:
    """Return how many series to convolve at a time, and how many blocks of each."""
    blocks = -(-problem.outputs // block)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * problem.groups * problem.out_channels * _parts(problem, block) * block
    if problem.batch * blocks * size <= WHOLE:
        return problem.batch, blocks
    if blocks * size <= CHUNK:
        return CHUNK // (blocks * size), blocks
    return 1, min(max(CHUNK // size, 1), blocks)


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel reaches along several axes, is dilated or has too many channels, else None."""
    if _one_axis.long_axis(problem) is None:
        return f"needs a kernel with several taps on one axis only, not {problem.kernel_shape}"
    flat, columns = _one_axis.one_dimensional(problem), _one_axis.columns(problem)
    if flat.spec.lhs_dilation != (1,) or flat.spec.rhs_dilation != (1,):
        return "the input or the kernel is dilated"
    size = _matrix_size(flat, _block(flat, columns), columns)
    if size > MAX_MATRIX:
        return f"its matrices would have {size} elements (at most {MAX_MATRIX})"
    return None


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it loops over, so that their devices exchange data."""
    flat, columns = _one_axis.one_dimensional(problem), _one_axis.columns(problem)
    looped = columns or _at_a_time(flat, _block(flat, columns))[0] < flat.batch
    return ("batch",) if looped else ()


def cost(problem: Problem) -> Cost:
    """Return the cost of the matrix products and of adding up their parts."""
    flat, columns = _one_axis.one_dimensional(problem), _one_axis.columns(problem)
    block, stride = _block(flat, columns), flat.spec.strides[0]
    blocks = -(-flat.outputs // block)
    itemsize = accumulation_dtype(flat.spec.out_dtype).itemsize
    inputs, outputs = (flat.groups * flat.batch * size for size in (flat.in_channels, flat.out_channels * flat.outputs))
    matrix = _matrix_size(flat, block, columns)
    terms: dict[str, float]
    if columns:
        inputs *= _read(flat, flat.outputs)
        tile = _tile(flat, block, columns)
        chunks = flat.batch // columns * blocks * -(-columns // tile)
        stretches = flat.batch * blocks * _read(flat, block)
        multiply_adds, held, read = stretches * block, stretches // chunks, stretches
        terms = {}
    else:
        parts = _parts(flat, block)
        inputs *= (blocks + parts - 1) * block * stride
        series, some = _at_a_time(flat, block)
        chunks = -(-flat.batch // series) * -(-blocks // some)
        products = flat.groups * flat.batch * (blocks + parts - 1) * flat.out_channels * block * parts
        multiply_adds, held, read = products * flat.in_channels * block * stride, products // chunks, products
        terms = {"series multiply_adds": multiply_adds, "series bytes": itemsize * read, **_one_axis.moves(problem)}
    bytes_moved = itemsize * (2 * read + 2 * inputs + 2 * matrix + 2 * outputs * (chunks > 1))
    scratch = itemsize * (held + inputs + 2 * matrix)
    return direct_cost(
        problem,
        multiply_adds=multiply_adds,
        bytes_moved=bytes_moved,
        scratch=scratch,
        terms={
            "chunks": chunks if columns or chunks > 1 else 0,
            "multiply_adds": multiply_adds,
            "bytes": bytes_moved,
            "fresh": fresh(scratch, itemsize * outputs),
            **terms,
        },
    )


def _matrices(problem: Problem, w: jax.Array, block: int, rows: int) -> jax.Array:
    """Return T[g, o, i, c, r], the kernel shifted by i * stride, for so many rows r."""
    stride = problem.spec.strides[0]
    # Copies of the kernel, each padded to rows + stride, drift by the stride when they are read as rows of length
    # `rows`.
    w = lax.pad(w, jnp.zeros((), w.dtype), [(0, 0, 0)] * 3 + [(0, rows + stride - w.shape[-1], 0)])
    w = jnp.broadcast_to(w[..., None, :], (*w.shape[:3], block, rows + stride)).reshape(*w.shape[:3], -1)
    return w[..., : block * rows].reshape(*w.shape[:3], block, rows).transpose(0, 1, 3, 2, 4)


def _start(number: jax.Array, size: int, whole: int) -> jax.Array:
    """Return where a chunk begins, of chunks of equal size; the last one ends where all end."""
    return jnp.minimum(number * size, whole - size)


def _over_columns(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve columns of images, a block of rows at a time."""
    flat, columns = _one_axis.one_dimensional(problem), _one_axis.columns(problem)
    block, stride, outputs = _block(flat, columns), flat.spec.strides[0], flat.outputs
    read, tile = _read(flat, block), _tile(flat, block, columns)
    blocks, tiles = -(-outputs // block), -(-columns // tile)
    low, _ = flat.spec.padding[0]
    images = flat.batch // columns
    x = _one_axis.across(problem, x).reshape(images, -1, columns)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (low, _read(flat, outputs) - low - x.shape[1], 0), (0, 0, 0)])
    matrix = _matrices(flat, w.reshape(1, 1, 1, -1), block, read).reshape(block, read)

    def step(number: jax.Array, y: jax.Array) -> jax.Array:
        image, row = number // (blocks * tiles), _start(number // tiles % blocks, block, outputs)
        column = _start(number % tiles, tile, columns)
        stretch = lax.dynamic_slice(x, (image, row * stride, column), (1, read, tile))[0]
        part = lax.dot(matrix, stretch, precision=flat.spec.precision)
        return lax.dynamic_update_slice(y, part[None], (image, row, column))

    y = _windows.zeros_like(x, (images, outputs, columns))
    return lax.fori_loop(0, images * blocks * tiles, step, y).reshape(problem.y_shape)


def _over_series(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve series whose samples follow each other."""
    x, w = _one_axis.flatten(problem, x, w)
    flat = _one_axis.one_dimensional(problem)
    block, outputs = _block(flat, 0), flat.outputs
    parts, advance, blocks = _parts(flat, block), block * flat.spec.strides[0], -(-outputs // block)
    low, _ = flat.spec.padding[0]
    # Samples beyond the last block meet no output, and there are fewer than one block of them.
    beyond = (blocks + parts - 1) * advance - low - x.shape[-1]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * 3 + [(low, beyond, 0)])
    x = x.reshape(*x.shape[:3], -1, advance)
    matrices = _matrices(flat, w, block, parts * advance)
    matrices = matrices.reshape(*matrices.shape[:4], parts, advance)

    def convolve(x: jax.Array) -> jax.Array:
        # [g, n, c, j, r] [g, o, i, c, p, r] -> [g, n, j, o, i, p]
        contracted = ((2, 4), (3, 5))
        product = lax.dot_general(x, matrices, (contracted, ((0,), (0,))), precision=flat.spec.precision)
        count = product.shape[2] - parts + 1
        shifted = [lax.slice_in_dim(product[..., p], p, p + count, axis=2) for p in range(parts)]
        y = functools.reduce(jnp.add, shifted).transpose(0, 1, 3, 2, 4)
        return y.reshape(*y.shape[:3], count * block)[..., :outputs]

    series, some = _at_a_time(flat, block)
    if (series, some) == (flat.batch, blocks):
        return _one_axis.restore(problem, convolve(x))
    rounds = -(-blocks // some)

    def step(number: jax.Array, y: jax.Array) -> jax.Array:
        one, first = _start(number // rounds, series, flat.batch), _start(number % rounds, some, blocks)
        shape = (flat.groups, series, flat.in_channels, some + parts - 1, advance)
        chunk = convolve(lax.dynamic_slice(x, (0, one, 0, first, 0), shape))
        return lax.dynamic_update_slice(y, chunk, (0, one, 0, first * block))

    # The last of several chunks of a series may end beyond the last output.
    length = outputs if rounds == 1 else blocks * block
    y = _windows.zeros_like(x, (flat.groups, flat.batch, flat.out_channels, length))
    y = lax.fori_loop(0, -(-flat.batch // series) * rounds, step, y)
    return _one_axis.restore(problem, y[..., :outputs])


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    dtype = accumulation_dtype(problem.spec.out_dtype)
    x, w = x.astype(dtype), _windows.as_correlation(problem, w).astype(dtype)
    compute = _over_columns if _one_axis.columns(problem) else _over_series
    return compute(problem, x, w).astype(problem.spec.out_dtype)
