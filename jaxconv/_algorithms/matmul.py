"""Matrix products over windows: dense layers with kernels of a few taps, in any number of dimensions.

Written out over the taps: the windows that the taps of one row of the kernel read, side by side, times a matrix of
that row's weights, and the products of all rows added up::

    y[m, o] = sum over rows of  (x[m * stride + k * rhs_dilation, c] for k in the row)  @  w[row, c, o]

With many channels each tap is a row of its own, with few a row holds several axes of the kernel, in the limit all:
im2col. A row is no longer than a matrix product needs to run at its full rate, so that what is gathered stays near the
size of the input.

Written out over the outputs, where these are few, as in the kernel gradient: one product for each output, of its window
with the whole kernel, contracted over channels and taps.

Cost: every multiply-add of the definition, those that meet padding included, at the rate of a matrix product, and the
traffic of windows and partial results. The products are written out in the program, so that their number is bounded.

Error: that of a sum of N products in any order, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2002, section 3.1). Half precision is summed in float32.
"""

import functools
import itertools
import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._cost import Cost, direct_error
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem

MAX_PRODUCTS = 64
MAX_WINDOWS = 128
# The inner dimension from which a matrix product runs at its full rate.
FULL_RATE = 16


def _over_outputs(problem: Problem) -> bool:
    """Whether to write out the outputs rather than the taps."""
    return problem.outputs <= MAX_PRODUCTS and problem.outputs < problem.taps


def _rows(problem: Problem) -> int:
    """Return how many leading axes of the kernel are written out as rows; the taps on the others lie side by side."""
    rows = problem.spec.ndim
    while rows and problem.in_channels * math.prod(problem.kernel_shape[rows:]) < FULL_RATE:
        rows -= 1
    return rows


def supports(problem: Problem) -> str | None:
    """Return the reason if there is nothing to form matrices of or the products would be too many, else None."""
    if _over_outputs(problem):
        return "sums of a single channel, not matrix products" if problem.batch * problem.out_channels == 1 else None
    if problem.in_channels * problem.out_channels == 1:
        return "sums of a single channel, not matrix products"
    products = math.prod(problem.kernel_shape[: _rows(problem)])
    if products <= MAX_PRODUCTS and problem.taps <= MAX_WINDOWS:
        return None
    return (
        f"would write out {products} products (at most {MAX_PRODUCTS}) of {problem.taps} windows (at most "
        f"{MAX_WINDOWS}), or {problem.outputs} outputs (at most {MAX_PRODUCTS})"
    )


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it merges with others, so that their devices exchange data: the channels of several taps."""
    side_by_side = math.prod(problem.kernel_shape[_rows(problem) :])
    return () if _over_outputs(problem) or side_by_side == 1 else ("in_channels",)


def cost(problem: Problem) -> Cost:
    """Return the cost of the products and of the traffic between them."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    padded = _windows.padded_size(problem)
    result = math.prod(problem.y_shape)
    kernel = math.prod(problem.w_shape)
    windows = problem.groups * problem.batch * problem.in_channels * problem.outputs * problem.taps
    if _over_outputs(problem):
        form, products, partial, kernels = "outputs", problem.outputs, result, problem.outputs * kernel
    else:
        products = math.prod(problem.kernel_shape[: _rows(problem)])
        form, partial, kernels = "taps", products * result, 0
    if problem.groups > 1:
        form = f"grouped {form}"
    bytes_moved = itemsize * (padded + 2 * windows + 2 * partial)
    return Cost(
        multiply_adds=problem.multiply_adds,
        transform_flops=0,
        bytes_moved=bytes_moved,
        scratch=itemsize * (padded + 2 * windows // products + 2 * result),
        error=direct_error(problem),
        terms={
            "call": 1,
            "products": products * problem.groups,
            "padded": itemsize * padded,
            f"{form} windows": windows,
            f"{form} results": partial,
            f"{form} multiply_adds": problem.multiply_adds,
            **({f"{form} kernels": kernels} if kernels else {}),
        },
    )


def _sum_over_taps(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    ndim, precision = problem.spec.ndim, problem.spec.precision
    layout = _windows.Layout((0, 1, *range(3, 3 + ndim), 2))
    x = _windows.padded(problem, x, layout)
    rows = _rows(problem)
    terms = []
    for row in _windows.positions(problem.kernel_shape[:rows]):
        taps = [(*row, *rest) for rest in _windows.positions(problem.kernel_shape[rows:])]
        columns = lax.concatenate([_windows.of_tap(problem, x, layout, tap) for tap in taps], ndim + 2)
        # [g, o, c, *rest] -> [g, *rest, c, o]
        weights = w[(..., *row, *itertools.repeat(slice(None), ndim - rows))]
        weights = jnp.moveaxis(weights, (1, 2), (-1, -2)).reshape(problem.groups, -1, problem.out_channels)
        terms.append(lax.dot_general(columns, weights, (((ndim + 2,), (1,)), ((0,), (0,))), precision=precision))
    return layout.undo(functools.reduce(jnp.add, terms))


def _product_per_output(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    spatial = range(3, 3 + problem.spec.ndim)
    exchanged = problem.spec.layout == "batch_last"
    layout = _windows.Layout((0, 2, *spatial, 1) if exchanged else (0, 1, *spatial, 2))
    x, w = _windows.padded(problem, x, layout), w.transpose(layout.order)
    group, _, channel = layout.group_batch_channel
    contracted = (channel, *layout.spatial)
    dimensions = ((contracted, contracted), ((group,), (group,)))
    products = [
        lax.dot_general(_windows.of_output(problem, x, layout, m), w, dimensions, precision=problem.spec.precision)
        for m in _windows.positions(problem.output_shape)
    ]
    return jnp.stack(products, axis=-1).reshape(problem.y_shape)


def run(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve canonical operands."""
    spec = problem.spec
    accumulator = accumulation_dtype(spec.out_dtype)
    x, w = x.astype(accumulator), w.astype(accumulator)
    if spec.convention == "convolution":
        w = lax.rev(w, tuple(range(3, 3 + spec.ndim)))
    compute = _product_per_output if _over_outputs(problem) else _sum_over_taps
    return compute(problem, x, w).astype(spec.out_dtype)
