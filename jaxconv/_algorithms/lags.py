"""Few outputs of a long sum: the kernel gradient of a long signal, or a correlation at selected lags.

With D outputs and a kernel of N taps (N much larger than D) the kernel is cut into blocks of B taps, and all blocks are
multiplied at once with the stretches of input that they meet::

    G[b, e] = sum_j w[j B + b] x[j B + e],      y[d] = sum_b G[b, b + d * stride]

that is, one matrix product with a long inner dimension and the sums over diagonals of its small result. It is the
transpose of the banded Toeplitz product.

Axes with one output, such as those of the kernel gradient of a filter along another axis, are summed over too: they
belong to the inner dimension. If such axes stand behind the long one, blocks and stretches are matrices already, of a
row for each tap, and are multiplied where they stand.

What is large is computed in parts that stay in the caches.

Cost: ``N (B + (D - 1) stride)`` multiply-adds for each pair of channels, at the rate of a matrix product.

Error: that of a sum of N products, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy and Stability
of Numerical Algorithms*, 2002, section 3.1).
"""

import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _one_axis, _windows
from jaxconv._cost import Cost, direct_cost, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

BLOCKS = (16, 32, 64, 128, 256)
# What comes with each sample of a stretch, and with each element of the small matrix, costs as much as so many
# multiply-adds.
SAMPLE = 32
DIAGONAL = 8
MAX_REACH = 4096
# Stretches of more than WHOLE bytes are formed for some channels or blocks at a time, CHUNK bytes together.
WHOLE = 12 * 2**20
CHUNK = 2 * 2**20


def _reach(problem: Problem) -> int:
    """Return by how much the last output's window is shifted against the first one's."""
    return (problem.outputs - 1) * problem.spec.strides[0]


def _flat(problem: Problem) -> Problem:
    return _one_axis.one_dimensional(problem, _one_axis.summed_axes(problem))


def _block(problem: Problem) -> int:
    """Return the length of a block that makes the least work (of a one-dimensional problem)."""

    def work(block: int) -> float:
        taps = -(-problem.kernel_shape[0] // block) * problem.in_channels
        return (block + _reach(problem)) * (taps * (block + SAMPLE) + DIAGONAL * block)

    return min(min(BLOCKS, key=work), problem.kernel_shape[0])


def _columns(problem: Problem) -> int:
    """Return how many samples lie side by side across the long axis, if they are to be multiplied there; else 0.

    Of a single series.
    """
    summed = _one_axis.summed_axes(problem)
    flat, axis = _flat(problem), _one_axis.long_axis(problem, summed) or 0
    count = math.prod(problem.kernel_shape[axis + 1 :])
    single = flat.groups * flat.batch * flat.out_channels == 1
    return count if single and count >= _one_axis.COLUMNS else 0


def _tile(problem: Problem, columns: int) -> int:
    """Return how many columns to multiply at a time."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    length = _block(problem) + _reach(problem)
    return min(columns, max(CHUNK // (itemsize * length), _one_axis.COLUMNS))


def _at_a_time(problem: Problem) -> tuple[int, int]:
    """Return for how many channels to form stretches at a time, and for how many blocks of each."""
    itemsize, block = accumulation_dtype(problem.spec.out_dtype).itemsize, _block(problem)
    blocks = -(-problem.kernel_shape[0] // block)
    stretch = itemsize * problem.groups * problem.batch * (block + _reach(problem))
    if problem.in_channels * blocks * stretch <= WHOLE:
        return problem.in_channels, blocks
    if blocks * stretch <= CHUNK:
        return min(CHUNK // (blocks * stretch), problem.in_channels), blocks
    rounds = -(-blocks // max(CHUNK // stretch, 1))
    return 1, -(-blocks // rounds)


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel is not the long operand on exactly one axis, or dilated, else None."""
    summed = _one_axis.summed_axes(problem)
    if _one_axis.long_axis(problem, summed) is None:
        return f"needs several taps and outputs on one axis only, not {problem.kernel_shape} and {problem.output_shape}"
    flat = _flat(problem)
    if flat.spec.lhs_dilation != (1,) or flat.spec.rhs_dilation != (1,):
        return "the input or the kernel is dilated"
    if _reach(flat) > MAX_REACH or flat.kernel_shape[0] < 2 * _reach(flat):
        return (
            f"needs few outputs of a much longer kernel, not {flat.outputs} outputs {flat.spec.strides[0]} apart of "
            f"{flat.kernel_shape[0]} taps"
        )
    return None


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it loops over, so that their devices exchange data."""
    flat = _flat(problem)
    looped = _columns(problem) or _at_a_time(flat)[0] < flat.in_channels
    return ("in_channels",) if looped else ()


def cost(problem: Problem) -> Cost:
    """Return the cost of the matrix product and of the stretches of input."""
    flat, columns = _flat(problem), _columns(problem)
    block, reach = _block(flat), _reach(flat)
    length, blocks = block + reach, -(-flat.kernel_shape[0] // block)
    itemsize = accumulation_dtype(flat.spec.out_dtype).itemsize
    terms: dict[str, float]
    if columns:
        tile = _tile(flat, columns)
        chunks = flat.in_channels // columns * blocks * -(-columns // tile)
        held, terms = tile * (length + block), {}
        copied = flat.in_channels * blocks * (length + block)
    else:
        channels, some = _at_a_time(flat)
        chunks = -(-flat.in_channels // channels) * -(-blocks // some)
        copied = flat.groups * flat.in_channels * blocks * (flat.batch * length + flat.out_channels * block)
        held = copied // chunks
        terms = _one_axis.moves(problem, _one_axis.summed_axes(problem)) | {"series bytes": itemsize * copied}
    products = flat.groups * flat.batch * flat.in_channels * flat.out_channels * blocks * block * length
    padded = any(flat.spec.padding[0]) * math.prod(problem.x_shape)
    results = flat.groups * flat.batch * flat.out_channels * block * length
    bytes_moved = 2 * itemsize * (copied + padded + results)
    scratch = itemsize * (held + padded + 2 * results)
    return direct_cost(
        problem,
        multiply_adds=products,
        bytes_moved=bytes_moved,
        scratch=scratch,
        terms={
            "chunks": chunks if columns or chunks > 1 else 0,
            "multiply_adds": products,
            "series multiply_adds": 0 if columns else products,
            "bytes": bytes_moved,
            "fresh": fresh(itemsize * padded),
            **terms,
        },
    )


def _stretches(x: jax.Array, block: int, length: int) -> jax.Array:
    """Return the stretches of the last axis but one, which is cut into blocks, that begin at each block."""
    parts = -(-length // block)
    count = x.shape[-2] - parts + 1
    shifted = [lax.slice_in_dim(x, part, part + count, axis=-2) for part in range(parts)]
    shifted[-1] = lax.slice_in_dim(shifted[-1], 0, length - (parts - 1) * block, axis=-1)
    return lax.concatenate(shifted, x.ndim - 1)


def _over_columns(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Return G[b, e] of the columns of images, a block of rows at a time."""
    flat, columns = _flat(problem), _columns(problem)
    block, taps = _block(flat), flat.kernel_shape[0]
    length, tile = block + _reach(flat), _tile(flat, columns)
    blocks, tiles = -(-taps // block), -(-columns // tile)
    low, _ = flat.spec.padding[0]
    images = flat.in_channels // columns
    x = _one_axis.across(problem, x, _one_axis.summed_axes(problem)).reshape(images, -1, columns)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (low, _reach(flat) + taps - low - x.shape[1], 0), (0, 0, 0)])
    w = w.reshape(images, taps, columns)

    def step(number: jax.Array, total: jax.Array) -> jax.Array:
        image, first = number // (blocks * tiles), (number // tiles % blocks * block, number % tiles * tile)
        row, column = jnp.minimum(first[0], taps - block), jnp.minimum(first[1], columns - tile)
        stretch = lax.dynamic_slice(x, (image, row, column), (1, length, tile))[0]
        kernel = lax.dynamic_slice(w, (image, row, column), (1, block, tile))[0]
        # The last block and the last columns may begin among those that are summed already.
        kernel = _windows.only_new(kernel, 0, row, first[0]) if taps % block else kernel
        kernel = _windows.only_new(kernel, 1, column, first[1]) if columns % tile else kernel
        return total + lax.dot_general(kernel, stretch, (((1,), (1,)), ((), ())), precision=flat.spec.precision)

    total = _windows.zeros_like(x, (block, length))
    return lax.fori_loop(0, images * blocks * tiles, step, total).reshape(1, 1, 1, block, length)


def _over_series(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Return G[g, n, o, b, e] of series whose samples follow each other."""
    x, w = _one_axis.flatten(problem, x, w, _one_axis.summed_axes(problem))
    flat = _flat(problem)
    block = _block(flat)
    length, blocks = block + _reach(flat), -(-w.shape[-1] // block)
    channels, some = _at_a_time(flat)
    rounds = -(-blocks // some)
    blocks, over = rounds * some, -(-length // block) - 1
    low, _ = flat.spec.padding[0]
    config = [(0, 0, 0)] * 3
    x = lax.pad(x, jnp.zeros((), x.dtype), [*config, (low, (blocks + over) * block - low - x.shape[-1], 0)])
    w = lax.pad(w, jnp.zeros((), w.dtype), [*config, (0, blocks * block - w.shape[-1], 0)])
    x, w = (array.reshape(*array.shape[:3], -1, block) for array in (x, w))

    def multiply(x: jax.Array, w: jax.Array) -> jax.Array:
        # [g, n, c, j, e] [g, o, c, j, b] -> [g, n, e, o, b]
        stretches = _stretches(x, block, length)
        return lax.dot_general(stretches, w, (((2, 3), (2, 3)), ((0,), (0,))), precision=flat.spec.precision)

    def step(number: jax.Array, total: jax.Array) -> jax.Array:
        first = number // rounds * channels
        start = (0, 0, jnp.minimum(first, flat.in_channels - channels), number % rounds * some, 0)
        part = lax.dynamic_slice(x, start, (*x.shape[:2], channels, some + over, block))
        kernel = lax.dynamic_slice(w, start, (*w.shape[:2], channels, some, block))
        kernel = _windows.only_new(kernel, 2, start[2], first) if flat.in_channels % channels else kernel
        return total + multiply(part, kernel)

    if (channels, rounds) == (flat.in_channels, 1):
        product = multiply(x, w)
    else:
        product = _windows.zeros_like(x, (flat.groups, flat.batch, length, flat.out_channels, block))
        product = lax.fori_loop(0, -(-flat.in_channels // channels) * rounds, step, product)
    return product.transpose(0, 1, 3, 4, 2)


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    dtype = accumulation_dtype(problem.spec.out_dtype)
    x, w = x.astype(dtype), _windows.as_correlation(problem, w).astype(dtype)
    product = (_over_columns if _columns(problem) else _over_series)(problem, x, w)
    *kept, block, length = product.shape
    # Read as rows one longer, the flattened matrix has its diagonals in columns.
    product = lax.pad(product.reshape(*kept, -1), jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(0, block, 0)])
    skewed = product.reshape(*kept, block, length + 1)
    flat = _flat(problem)
    y = jnp.sum(skewed[..., : _reach(flat) + 1 : flat.spec.strides[0]], axis=3)
    return _one_axis.restore(problem, y, _one_axis.summed_axes(problem)).astype(problem.spec.out_dtype)
