"""Matrix products over the windows of all outputs: the form of `matmul` where these are few, as in kernel gradients.

The windows that all outputs read of the input are gathered side by side, and one product with the kernel sums over
positions and channels::

    y[o, (m, n)] = sum_{c, k} w[o, c, k] x[n, c, m * stride + k * rhs_dilation]

Of a batch of few (of an image's channels, in the kernel gradient) they are gathered one behind the other, as planes,
since to interleave so few is slow.

(To gather windows of a smaller kernel instead, extended by zeros, would multiply samples by zeros that the definition
does not, and so spread NaN and infinities: see `jaxconv._algorithms.exchange`.) Where the kernel is dilated along the
last axis, as in the kernel gradient under a stride, those of neighbouring outputs are gathered together, in blocks of
as many samples. Windows are gathered for some input channels or for a part of one at a time, in chunks that stay in the
cache.
"""

import functools
import math
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _matrices, _windows
from jaxconv._algorithms._once import Call
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, dilated

MAX_OUTPUTS = 64
# Windows of more than WHOLE bytes are gathered in chunks, of at most CHUNK with what they are multiplied by.
WHOLE = 8 * 2**20
CHUNK = 4 * 2**20
# Where the outputs have at most NARROW columns, or the windows WIDER times as many, XLA on CPU multiplies up to six
# times faster if the outputs lead.
NARROW = 32
WIDER = 4
# Windows of a batch of so few are gathered as planes.
PLANES = 4


def applies(problem: Problem) -> bool:
    """Whether to write out the outputs rather than the taps."""
    return problem.outputs <= MAX_OUTPUTS and problem.outputs < problem.taps


def _chunk(problem: Problem) -> int:
    """Return for how many input channels to gather windows at a time."""
    if _matrices.channels_first(problem, problem.in_channels):
        return 1
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * _gathered(problem)
    if size <= WHOLE:
        return problem.in_channels
    return _matrices.items_at_a_time(problem.in_channels, size + itemsize * math.prod(problem.w_shape), CHUNK)


def _rows(problem: Problem) -> int:
    """Return for how many taps of the first axis to gather the windows of an input channel at a time."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * _gathered(problem) // problem.in_channels
    if size <= WHOLE or _chunk(problem) > 1:
        return problem.kernel_shape[0]
    size += itemsize * math.prod(problem.w_shape) // problem.in_channels
    return _matrices.items_at_a_time(problem.kernel_shape[0], size, CHUNK)


def _gathered(problem: Problem) -> int:
    """Return how many elements the windows of all outputs have; a single one is the input itself."""
    if problem.outputs == 1:
        return 0
    return problem.groups * problem.in_channels * problem.taps * problem.batch * problem.outputs


def _runs(problem: Problem) -> tuple[int, ...]:
    """Return how many elements of each block along the last axis outputs read; nothing if it is not in blocks."""
    if _matrices.channels_first(problem, problem.in_channels) or problem.spec.strides[-1] > 1:
        return ()
    if problem.spec.ndim == 1 and _rows(problem) < problem.kernel_shape[0]:
        return ()
    return _windows.runs(problem.output_shape[-1], problem.spec.rhs_dilation[-1], problem.batch)


def _in_blocks(problem: Problem) -> Problem:
    """Return the problem with an input that is padded to what the blocks of all windows span."""
    runs = _runs(problem)
    if not runs:
        return problem
    return _windows.in_blocks(problem, problem.spec.rhs_dilation[-1], problem.kernel_shape[-1] - 1 + len(runs))


def _in_planes(problem: Problem) -> bool:
    """Whether to gather windows as planes, although the kernel is read with its output channels behind."""
    return (
        problem.groups == 1 < problem.outputs
        and problem.batch <= PLANES
        and problem.spec.rhs_dilation[-1] == 1
        and not _matrices.channels_first(problem, problem.in_channels)
    )


def _orders(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the orders of the canonical axes in which windows of x are gathered and w is multiplied."""
    spatial = tuple(range(3, 3 + problem.spec.ndim))
    if _matrices.channels_first(problem, problem.in_channels):
        stored, _, _ = problem.spec.orders
        return stored, stored
    behind = (0, 2, *spatial, 1)
    return (0, 1, 2, *spatial) if _in_planes(problem) else behind, behind


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that the products merge with others or take apart."""
    merged = {"batch": problem.outputs > 1, "in_channels": _chunk(problem) < problem.in_channels}
    return tuple(axis for axis, is_merged in merged.items() if is_merged)


def work(problem: Problem) -> _matrices.Work:
    """Return what the products take."""
    spatial = tuple(range(3, 3 + problem.spec.ndim))
    x_order, w_order, y_order = problem.spec.orders
    gathered, wanted = _orders(problem)
    padded, windows, results = _windows.padded_size(_in_blocks(problem)), _gathered(problem), math.prod(problem.y_shape)
    chunks = -(-problem.in_channels // _chunk(problem)) * -(-problem.kernel_shape[0] // _rows(problem))
    return _matrices.Work(
        form="outputs",
        multiply_adds=problem.multiply_adds,
        chunks=chunks,
        padded=padded,
        windows=windows,
        products=results,
        narrow=problem.out_channels,
        scratch=(padded + windows) // chunks + 2 * results,
        moved=(
            _windows.moves(problem.x_shape, x_order, gathered),
            _windows.moves(problem.w_shape, w_order, wanted),
            _windows.moves(problem.y_shape, (0, 2, *spatial, 1), y_order),
        ),
    )


def _columns_lead(problem: Problem) -> bool:
    """Whether to compute the product with the windows, rather than the outputs, in front.

    XLA on CPU multiplies much wider matrices faster if the narrower one leads.
    """
    wide, outputs = problem.outputs * problem.batch, problem.out_channels
    if _in_planes(problem):
        return True
    if _matrices.channels_first(problem, problem.in_channels):
        return wide > outputs
    return outputs > min(NARROW, wide) and wide < WIDER * outputs


def _multiply(problem: Problem, w: jax.Array, columns: jax.Array, items: int, platform: str) -> jax.Array:
    """Sum products over all axes but that of the outputs of w, which is the last one or ``items``, and of the columns.

    [g, o, (c, *K)] [g, (*M, n), (c, *K)] -> [g, o, (*M, n)], or with the columns in front.
    """
    groups, leads = (problem.groups,) if problem.groups > 1 else (), _columns_lead(problem)
    if _in_planes(problem):
        columns, w = columns.reshape(columns.shape[items], -1), w.reshape(-1, problem.out_channels)
        return _matrices.product_of_rows(problem, columns, w, platform)
    channels_first = _matrices.channels_first(problem, problem.in_channels)
    if channels_first:
        w, columns = (array.reshape(*groups, array.shape[items], -1) for array in (w, columns))
        if not leads:
            return _matrices.product_of_rows(problem, w, jnp.swapaxes(columns, -1, -2), platform)
    elif leads or problem.out_channels <= NARROW:
        # XLA on CPU multiplies two matrices as they are, where it would transpose one of several axes first.
        w, columns = (array.reshape(*groups, -1, array.shape[items]) for array in (w, columns))
    kept = len(groups) if channels_first else w.ndim - 1
    summed = [axis for axis in range(len(groups), w.ndim) if axis != kept]
    return _matrices.product(problem, *((columns, w) if leads else (w, columns)), summed, summed)


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Correlate canonical operands in the dtype of accumulation."""
    spec, ndim = problem.spec, problem.spec.ndim
    groups = (problem.groups,) if problem.groups > 1 else ()
    # A single channel has no axis: in the loop below XLA on CPU may copy the kernel into another order of its axes.
    of_x, of_w = (
        _matrices.layout(problem, *(axis for axis in order if axis != 2 or problem.in_channels > 1))
        for order in _orders(problem)
    )
    chunk = _chunk(problem)
    leads, wide = _columns_lead(problem), problem.outputs * problem.batch
    product_shape = (*groups, *((wide, problem.out_channels) if leads else (problem.out_channels, wide)))
    offsets = [[m * s for m in range(size)] for size, s in zip(problem.output_shape, spec.strides, strict=True)]
    runs = _runs(problem)
    if runs:
        offsets[-1] = list(range(len(runs)))
    pad = functools.partial(_windows.pad, _in_blocks(problem), layout=of_x)

    def multiply(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        shape, axis = [w.shape[axis] for axis in of_w.spatial], of_x.order.index(1)
        steps = spec.rhs_dilation
        if runs:
            x, steps = _windows.blocks_of(x, steps[-1]), (*steps[:-1], 1)
        gather = functools.partial(_windows.side_by_side, layout=of_x, axis=axis, starts=starts, shape=shape)
        gather = functools.partial(gather, steps=steps, widths=runs)
        # Apart: in the loop that transposes a factor XLA would choose among the windows sample by sample.
        columns = once.apart(gather, x) if problem.outputs > 1 else gather(x)
        return _multiply(problem, w, columns, axis, once.platform)

    def by_rows(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        (taps, *_), rows = problem.kernel_shape, _rows(problem)
        stride, dilation, reach = spec.strides[0], spec.rhs_dilation[0], problem.output_shape[0]

        def part(start: jax.Array | int, rows: int) -> jax.Array:
            extent = dilated(rows, dilation) + (reach - 1) * stride
            window = lax.dynamic_slice_in_dim(x, start * dilation, extent, of_x.spatial[0])
            return multiply(starts, window, lax.dynamic_slice_in_dim(w, start, rows, of_w.spatial[0]))

        if rows == taps:
            return multiply(starts, x, w)
        total = _windows.zeros_like(x, product_shape)
        total = lax.fori_loop(0, taps // rows, lambda number, total: total + part(number * rows, rows), total)
        left = taps % rows
        return total + part(taps - left, left) if left else total

    def compute(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        if chunk == problem.in_channels:
            return by_rows(starts, x, w)

        axes = [layout.order.index(2) for layout in (of_x, of_w)]

        def step(number: jax.Array, total: jax.Array) -> jax.Array:
            start = jnp.minimum(number * chunk, problem.in_channels - chunk)

            def part(operand: jax.Array, axis: int) -> jax.Array:
                operand = lax.dynamic_slice_in_dim(operand, start, chunk, axis)
                if problem.in_channels % chunk == 0:
                    return operand
                # The last chunk begins before the one in front of it ends, with channels that are summed already.
                return _windows.only_new(operand, axis, start, number * chunk)

            x_part, w_part = map(part, (x, w), axes)
            return total + by_rows(starts, pad(x_part), w_part)

        total = _windows.zeros_like(x, product_shape)
        return lax.fori_loop(0, -(-problem.in_channels // chunk), step, total)

    x, w = of_x.arrange(x), of_w.arrange(w)
    x = pad(x) if chunk == problem.in_channels else x
    y = _matrices.without_units(once, compute, product_shape, offsets, x, w)
    # Split first, so that XLA sees one transposition to what the caller holds.
    if leads:
        y = y.reshape(problem.groups, *problem.output_shape, problem.batch, problem.out_channels)
        return y.transpose(0, 1 + ndim, 2 + ndim, *range(1, 1 + ndim))
    y = y.reshape(problem.groups, problem.out_channels, *problem.output_shape, problem.batch)
    return y.transpose(0, 2 + ndim, 1, *range(2, 2 + ndim))
