"""Few outputs of a long sum: the kernel gradient of a long signal, or a correlation at selected lags.

With D outputs and a kernel of N taps (N much larger than D) the kernel is cut into blocks of B taps, and all blocks are
multiplied at once with the stretches of input that they meet::

    G[b, e] = sum_j w[j B + b] x[j B + e],      y[d] = sum_b G[b, b + d * stride]

that is, one matrix product with a long inner dimension and the sums over diagonals of its small result. It is the
transpose of the banded Toeplitz product.

Cost: ``N (B + (D - 1) stride)`` multiply-adds for each pair of channels, at the rate of a matrix product.

Error: that of a sum of N products, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy and Stability
of Numerical Algorithms*, 2002, section 3.1).
"""

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _one_axis
from jaxconv._cost import Cost, direct_error, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

BLOCKS = (16, 32, 64, 128, 256)
MAX_REACH = 4096


def _reach(problem: Problem) -> int:
    """Return by how much the last output's window is shifted against the first one's."""
    return (problem.outputs - 1) * problem.spec.strides[0]


def _block(problem: Problem) -> int:
    """Return the length of a block: about half of the reach, which a block's stretch of input repeats."""
    return next((block for block in BLOCKS if 2 * block >= _reach(problem)), BLOCKS[-1])


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel is not the long operand on exactly one axis, or dilated, else None."""
    if _one_axis.long_axis(problem) is None:
        return f"needs a kernel with several taps on one axis only, not {problem.kernel_shape}"
    flat = _one_axis.one_dimensional(problem)
    if flat.spec.lhs_dilation != (1,) or flat.spec.rhs_dilation != (1,):
        return "the input or the kernel is dilated"
    if _reach(flat) > MAX_REACH or flat.kernel_shape[0] < 2 * _reach(flat):
        return (
            f"needs few outputs of a much longer kernel, not {flat.outputs} outputs {flat.spec.strides[0]} apart of "
            f"{flat.kernel_shape[0]} taps"
        )
    return None


def cost(problem: Problem) -> Cost:
    """Return the cost of the matrix product and of the stretches of input."""
    flat = _one_axis.one_dimensional(problem)
    block, reach = _block(flat), _reach(flat)
    itemsize = accumulation_dtype(flat.spec.out_dtype).itemsize
    taps = -(-flat.kernel_shape[0] // block) * block
    products = flat.groups * flat.batch * flat.in_channels * flat.out_channels * taps * (block + reach)
    stretches = (
        flat.groups * flat.in_channels * (flat.batch * taps * (block + reach) // block + flat.out_channels * taps)
    )
    results = flat.groups * flat.batch * flat.out_channels * block * (block + reach)
    bytes_moved = 2 * itemsize * (stretches + results)
    scratch = itemsize * (stretches + 2 * results)
    return Cost(
        multiply_adds=products,
        transform_flops=0,
        bytes_moved=bytes_moved,
        scratch=scratch,
        error=direct_error(problem),
        terms={
            "call": 1,
            "multiply_adds": products,
            "bytes": bytes_moved,
            "fresh": fresh(scratch),
            **_one_axis.moves(problem),
        },
    )


def _stretches(x: jax.Array, block: int, length: int, count: int) -> jax.Array:
    """Return ``count`` stretches of the last axis, ``length`` long and ``block`` apart."""
    parts = -(-length // block)
    total = (count + parts - 1) * block
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 1) + [(0, total - x.shape[-1], 0)])
    x = x.reshape(*x.shape[:-1], -1, block)
    shifted = [lax.slice_in_dim(x, p, p + count, axis=-2) for p in range(parts)]
    return lax.concatenate(shifted, x.ndim - 1)[..., :length]


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    dtype = accumulation_dtype(problem.spec.out_dtype)
    x, w = _one_axis.flatten(problem, x.astype(dtype), w.astype(dtype))
    flat = _one_axis.one_dimensional(problem)
    if flat.spec.convention == "convolution":
        w = lax.rev(w, (3,))
    block, reach, stride = _block(flat), _reach(flat), flat.spec.strides[0]
    length = block + reach
    blocks = -(-w.shape[-1] // block)
    x = lax.pad(x, jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(*flat.spec.padding[0], 0)])
    w = lax.pad(w, jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(0, blocks * block - w.shape[-1], 0)])
    x = _stretches(x, block, length, blocks)
    w = w.reshape(*w.shape[:3], blocks, block)
    # [g, n, c, j, e] [g, o, c, j, b] -> [g, n, e, o, b]
    product = lax.dot_general(x, w, (((2, 3), (2, 3)), ((0,), (0,))), precision=flat.spec.precision)
    product = product.transpose(0, 1, 3, 4, 2).reshape(flat.groups, flat.batch, flat.out_channels, block * length)
    # Read as rows one longer, the flattened matrix has its diagonals in columns.
    product = lax.pad(product, jnp.zeros((), dtype), [(0, 0, 0)] * 3 + [(0, block, 0)])
    skewed = product.reshape(*product.shape[:3], block, length + 1)
    y = jnp.sum(skewed[..., : reach + 1 : stride], axis=3)
    return _one_axis.restore(problem, y).astype(problem.spec.out_dtype)
