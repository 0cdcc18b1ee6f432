"""Banded Toeplitz matrices: one-dimensional kernels of tens to hundreds of taps, with few channels.

The signal is cut into blocks of ``B`` outputs. A block and what the kernel reaches beyond it, ``P`` blocks of input,
are multiplied by the matrix whose column i is the kernel shifted by i (times the stride)::

    y[j B + i] = sum_{p, r} x[(j + p) H + r] T[p H + r, i],     H = B * stride

All blocks share one matrix, so that the whole convolution is a single matrix product, which runs at the machine's full
rate, and a sum of ``P`` shifted parts of its result.

Cost: ``P H`` multiply-adds for each output and pair of channels: with a block as long as the kernel twice those of the
definition, at the rate of a matrix product instead of that of a convolution with one channel.

Error: that of a sum of N products, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy and Stability
of Numerical Algorithms*, 2002, section 3.1): the products with the zeros of the matrix add nothing to it.
"""

import functools
import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _one_axis
from jaxconv._cost import Cost, direct_error, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

# Shorter blocks make poor matrix products, longer ones waste more of them.
BLOCKS = (16, 32, 64, 128, 256)
# The matrix for all pairs of channels has at most this many elements.
MAX_MATRIX = 1 << 22


def _parts(problem: Problem, block: int) -> int:
    """Return how many blocks of input the outputs of one block need (for a one-dimensional problem)."""
    stride = problem.spec.strides[0]
    return -(-((block - 1) * stride + problem.kernel_shape[0]) // (block * stride))


def _matrix_size(problem: Problem, block: int) -> int:
    rows = _parts(problem, block) * block * problem.spec.strides[0]
    return problem.groups * problem.in_channels * problem.out_channels * rows * block


def _block(problem: Problem) -> int:
    """Return the length of a block that makes the least work: of the product, and of adding up its parts."""

    def work(block: int) -> float:
        parts = _parts(problem, block)
        # An output of a part costs about as much to write and to add as 32 multiply-adds of a matrix product.
        return parts * (block * problem.spec.strides[0] * problem.in_channels + 32)

    return min(BLOCKS, key=work)


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel reaches along several axes, is dilated or has too many channels, else None."""
    if _one_axis.long_axis(problem) is None:
        return f"needs a kernel with several taps on one axis only, not {problem.kernel_shape}"
    flat = _one_axis.one_dimensional(problem)
    if flat.spec.lhs_dilation != (1,) or flat.spec.rhs_dilation != (1,):
        return "the input or the kernel is dilated"
    size = _matrix_size(flat, _block(flat))
    if size > MAX_MATRIX:
        return f"its matrices would have {size} elements (at most {MAX_MATRIX})"
    return None


def cost(problem: Problem) -> Cost:
    """Return the cost of the matrix product and of adding up its parts."""
    flat = _one_axis.one_dimensional(problem)
    block = _block(flat)
    parts, stride = _parts(flat, block), flat.spec.strides[0]
    series = flat.groups * flat.batch
    blocks = -(-flat.outputs // block) + parts - 1
    itemsize = accumulation_dtype(flat.spec.out_dtype).itemsize
    products = series * blocks * flat.out_channels * block * parts
    signal = series * flat.in_channels * blocks * block * stride
    multiply_adds = products * flat.in_channels * block * stride
    bytes_moved = itemsize * (2 * products + 2 * signal + 2 * _matrix_size(flat, block))
    scratch = itemsize * (products + signal + 2 * _matrix_size(flat, block))
    return Cost(
        multiply_adds=multiply_adds,
        transform_flops=0,
        bytes_moved=bytes_moved,
        scratch=scratch,
        error=direct_error(problem),
        terms={
            "call": 1,
            "multiply_adds": multiply_adds,
            "bytes": bytes_moved,
            **_one_axis.moves(problem),
            "fresh": fresh(scratch, itemsize * math.prod(flat.y_shape)),
        },
    )


def _matrices(problem: Problem, w: jax.Array, block: int) -> jax.Array:
    """Return T[g, o, i, c, p, r], the kernel shifted by i * stride along the flattened axes (p, r)."""
    stride, parts = problem.spec.strides[0], _parts(problem, block)
    rows = parts * block * stride
    # Copies of the kernel, each padded to rows + stride, drift by the stride when they are read as rows of length
    # `rows`.
    w = lax.pad(w, jnp.zeros((), w.dtype), [(0, 0, 0)] * 3 + [(0, rows + stride - w.shape[-1], 0)])
    w = jnp.broadcast_to(w[..., None, :], (*w.shape[:3], block, rows + stride)).reshape(*w.shape[:3], -1)
    w = w[..., : block * rows].reshape(*w.shape[:3], block, parts, block * stride)
    return w.transpose(0, 1, 3, 2, 4, 5)


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    dtype = accumulation_dtype(problem.spec.out_dtype)
    x, w = _one_axis.flatten(problem, x.astype(dtype), w.astype(dtype))
    flat = _one_axis.one_dimensional(problem)
    if flat.spec.convention == "convolution":
        w = lax.rev(w, (3,))
    block = _block(flat)
    parts, length = _parts(flat, block), flat.outputs
    advance = block * flat.spec.strides[0]
    blocks = -(-length // block)
    low, _ = flat.spec.padding[0]
    total = (blocks + parts - 1) * advance
    # Samples beyond `total` meet no output, and there are fewer than one block of them.
    x = lax.pad(x, jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(low, total - low - x.shape[-1], 0)])
    x = x.reshape(*x.shape[:3], blocks + parts - 1, advance)
    # [g, n, c, j, r] [g, o, i, c, p, r] -> [g, n, j, o, i, p]
    product = lax.dot_general(
        x, _matrices(flat, w, block), (((2, 4), (3, 5)), ((0,), (0,))), precision=flat.spec.precision
    )
    shifted = [lax.slice_in_dim(product[..., p], p, p + blocks, axis=2) for p in range(parts)]
    y = functools.reduce(jnp.add, shifted)
    y = y.transpose(0, 1, 3, 2, 4).reshape(flat.groups, flat.batch, flat.out_channels, blocks * block)
    return _one_axis.restore(problem, y[..., :length]).astype(problem.spec.out_dtype)
