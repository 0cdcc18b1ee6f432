"""Matrix products over windows: dense layers with kernels of a few taps, in any number of dimensions.

Written out over the taps. The kernel's axes are split into leading and trailing ones, ``k = (a, b)``. The windows
that the trailing taps read are gathered side by side and multiplied, in one product, by the weights of all leading
taps; then the shifted parts of that product are added up::

    p[q, (a, o)] = sum_{b, c} x[q, b * rhs_dilation + ..., c] w[a, b, c, o]
    y[m, o] = sum_a p[m * stride + a * rhs_dilation, (a, o)]

Under a stride along the last axis, taps that read neighbouring samples are gathered together: of an input that is taken
as blocks of as many samples as the stride, with the channels behind them, each window has a few whole blocks and a part
of one, one after the other in memory.

With no leading axis this is im2col. With no trailing one nothing is gathered: each sample is multiplied by all
weights, and what is moved are outputs, which pays where there are fewer of those than of inputs. The split is the one
that moves and multiplies least. Along leading axes products are padded and dilated rather than the input, if they are
narrower.

Written out over the outputs where these are few, as in the kernel gradient: the windows that all outputs read of the
input are gathered side by side, and one product with the kernel sums over positions and channels (see
`jaxconv._algorithms._outputs`).

What is gathered or summed later is formed for a few items of the batch at a time, so that it stays in the caches:
larger temporaries are mapped afresh by the allocator at every call, and their page faults cost more than the
arithmetic. Channels are contracted where the caller has them, in front of the positions or behind, so that no operand
is transposed.

Cost: every multiply-add of the definition, those that meet padding included, at the rate of a matrix product, and the
traffic of windows and of products that are summed later. Windows and terms are written out in the program, so that
their number is bounded.

Error: that of a sum of N products in any order, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2002, section 3.1). Half precision is summed in float32, and its windows are
multiplied as they are.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _matrices, _outputs, _windows
from jaxconv._algorithms._once import Call
from jaxconv._cost import Cost
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, dilated

MAX_TERMS = 64
MAX_WINDOWS = 128
# Windows and products of more than WHOLE bytes are formed for some items of the batch at a time, CHUNK bytes together.
WHOLE = 12 * 2**20
CHUNK = 8 * 2**20
# As many multiply-adds take the time of moving one element.
RATE = 24
# For at least ROWS rows a kernel that is held the other way round is transposed.
ROWS = 256


def _split(problem: Problem) -> int | None:
    """Return how many leading axes of the kernel are summed after the product; None if no number is admissible.

    The fastest one: elements of a window are written by a strided copy and read again, those of a product that is
    summed later are written and read, and along leading axes products are formed at positions of no outputs, too.
    """

    def time(leading: int) -> float:
        terms, windows = _counts(problem, leading)
        gathered = 3 * problem.in_channels * windows if windows > 1 else 0
        products = problem.out_channels * terms * (2 if terms > 1 else 1)
        multiply_adds = problem.in_channels * windows * problem.out_channels * terms
        return (gathered + products + multiply_adds / RATE) * _positions(problem, leading)

    admissible = []
    for leading in range(problem.spec.ndim + 1):
        terms, _ = _counts(problem, leading)
        if terms <= MAX_TERMS and _slices(problem, leading) <= MAX_WINDOWS:
            admissible.append(leading)
    return min(admissible, key=time, default=None)


def _counts(problem: Problem, leading: int) -> tuple[int, int]:
    """Return the number of taps on the leading axes, and on the others."""
    return math.prod(problem.kernel_shape[:leading]), math.prod(problem.kernel_shape[leading:])


def _slices(problem: Problem, leading: int) -> int:
    """Return how many slices of the input are gathered: windows, or blocks of them."""
    _, windows = _counts(problem, leading)
    runs = _runs(problem, leading)
    return windows // problem.kernel_shape[-1] * len(runs) if runs else windows


def supports(problem: Problem) -> str | None:
    """Return the reason if there is nothing to form matrices of or the products would be too many, else None."""
    if _outputs.applies(problem):
        return "sums of a single channel, not matrix products" if problem.batch * problem.out_channels == 1 else None
    if problem.in_channels * problem.out_channels == 1:
        return "sums of a single channel, not matrix products"
    if _split(problem) is None:
        return (
            f"would write out more than {MAX_WINDOWS} windows or {MAX_TERMS} terms for a kernel of "
            f"{problem.kernel_shape}, or {problem.outputs} outputs (at most {_outputs.MAX_OUTPUTS})"
        )
    return None


def _pads_products(problem: Problem, leading: int) -> bool:
    """Whether leading axes are dilated and padded after the product, which is narrower than the input."""
    terms, _ = _counts(problem, leading)
    return leading > 0 and problem.out_channels * terms < problem.in_channels


def _positions(problem: Problem, leading: int) -> int:
    """Return how many positions of an item of the batch the product is formed at."""
    positions = math.prod(problem.output_shape[leading:])
    if _pads_products(problem, leading):
        return positions * math.prod(problem.input_shape[:leading])
    for axis in range(leading):
        low, high = problem.spec.padding[axis]
        positions *= dilated(problem.input_shape[axis], problem.spec.lhs_dilation[axis]) + low + high
    return positions


def _padded(problem: Problem, leading: int) -> int:
    """Return how many elements padding copies, those of the input or of products that are summed later."""
    padded = _in_blocks(problem, leading)
    if not _pads_products(problem, leading):
        return _windows.padded_size(padded)
    terms, _ = _counts(problem, leading)
    behind = math.prod(problem.output_shape[leading:])
    products = dataclasses.replace(problem, in_channels=problem.out_channels * terms)
    products = _windows.padded_size(products, range(leading)) // math.prod(problem.input_shape[leading:]) * behind
    return products + _windows.padded_size(padded, range(leading, problem.spec.ndim))


def _runs(problem: Problem, leading: int) -> tuple[int, ...]:
    """Return how many elements of each block along the last axis a window reads; nothing if it is not in blocks."""
    if leading == problem.spec.ndim or problem.spec.rhs_dilation[-1] > 1:
        return ()
    if _matrices.channels_first(problem, problem.batch):
        return ()
    return _windows.runs(problem.kernel_shape[-1], problem.spec.strides[-1], problem.in_channels)


def _in_blocks(problem: Problem, leading: int) -> Problem:
    """Return the problem with an input that is padded to what the blocks of all windows span."""
    runs = _runs(problem, leading)
    if not runs:
        return problem
    return _windows.in_blocks(problem, problem.spec.strides[-1], problem.output_shape[-1] - 1 + len(runs))


def _chunk(problem: Problem, leading: int) -> int:
    """Return for how many items of the batch to form windows and products at a time."""
    if _matrices.channels_first(problem, problem.batch):
        return 1
    terms, windows = _counts(problem, leading)
    width = problem.in_channels * windows * (windows > 1) + problem.out_channels * terms * (terms > 1)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * problem.groups * _positions(problem, leading) * width * problem.batch
    return _matrices.items_at_a_time(problem.batch, size, CHUNK) if size > WHOLE else problem.batch


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it merges with others or takes apart, so that their devices exchange data."""
    if _outputs.applies(problem):
        return _outputs.gathers(problem)
    leading = _split(problem) or 0
    terms, windows = _counts(problem, leading)
    chunked = _chunk(problem, leading) < problem.batch
    merged = {"in_channels": windows > 1, "out_channels": terms > 1, "batch": chunked}
    return tuple(axis for axis, is_merged in merged.items() if is_merged)


def cost(problem: Problem) -> Cost:
    """Return the cost of the products and of the traffic between them."""
    if _outputs.applies(problem):
        return _outputs.work(problem).cost(problem)
    spatial = tuple(range(3, 3 + problem.spec.ndim))
    x_order, w_order, y_order = problem.spec.orders
    wanted = x_order if _matrices.channels_first(problem, problem.batch) else (0, 1, *spatial, 2)
    leading = _split(problem) or 0
    terms, count = _counts(problem, leading)
    length = problem.in_channels * count
    items = problem.groups * problem.batch * _positions(problem, leading)
    windows = items * length * (count > 1)
    products = items * problem.out_channels * terms
    padded, chunks = _padded(problem, leading), -(-problem.batch // _chunk(problem, leading))
    return _matrices.Work(
        form="taps",
        multiply_adds=products * length,
        chunks=chunks,
        padded=padded,
        windows=windows,
        products=products,
        narrow=problem.out_channels * terms,
        scratch=(padded + windows + (products if terms > 1 else 0)) // chunks,
        moved=(
            _windows.moves(problem.x_shape, x_order, wanted),
            _windows.moves(problem.w_shape, w_order, _order_of_kernel(problem, leading)),
            _windows.moves(problem.y_shape, wanted, y_order),
        ),
    ).cost(problem)


def _outputs_lead(problem: Problem, leading: int) -> bool:
    """Whether to multiply by a kernel with the outputs in front, as it is held."""
    _, w_order, _ = problem.spec.orders
    _, windows = _counts(problem, leading)
    if windows > 1 or problem.groups > 1 or _matrices.channels_first(problem, problem.batch):
        return False
    return w_order[-1] == 2 and problem.batch * _positions(problem, leading) < ROWS


def _order_of_kernel(problem: Problem, leading: int) -> tuple[int, ...]:
    """Return the order of the kernel's axes in which it is multiplied."""
    first, rest = range(3, 3 + leading), range(3 + leading, 3 + problem.spec.ndim)
    return (0, *rest, *first, 1, 2) if _outputs_lead(problem, leading) else (0, *rest, 2, *first, 1)


def _sum_over_taps(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    spec, ndim, leading = problem.spec, problem.spec.ndim, _split(problem) or 0
    _, windows = _counts(problem, leading)
    space, groups = range(3, 3 + ndim), (problem.groups,) if problem.groups > 1 else ()
    channels_first = _matrices.channels_first(problem, problem.batch)
    layout = _matrices.layout(problem, *((0, 1, 2, *space) if channels_first else (0, 1, *space, 2)))
    channels, where = layout.order.index(2), layout.order.index(1)
    joined = once.platform == "cpu" and _matrices.joins(problem) and not channels_first
    shape = tuple(problem.y_shape[axis] for axis in layout.order)
    if joined:
        shape = (problem.batch, *problem.output_shape, problem.groups * problem.out_channels)
    chunk = _chunk(problem, leading)
    runs = _runs(problem, leading)
    offsets = [[k * d for k in range(taps)] for taps, d in zip(problem.kernel_shape, spec.rhs_dilation, strict=True)]
    if runs:
        offsets[-1] = list(range(len(runs)))
    outputs_lead = _outputs_lead(problem, leading)
    late = range(leading) if _pads_products(problem, leading) else range(0)
    pad = functools.partial(_windows.pad, _in_blocks(problem, leading), layout=layout, axes=range(len(late), ndim))

    def multiply(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        extents = (*(x.shape[axis] for axis in layout.spatial[:leading]), *problem.output_shape[leading:])
        steps = (1,) * leading + spec.strides[leading:]
        if runs:
            x, steps = _windows.blocks_of(x, spec.strides[-1]), (*steps[:-1], 1)
        columns = _windows.side_by_side(x, layout, channels, [[0]] * leading + list(starts), extents, steps, runs)
        if channels_first:  # of a single item
            matrix = columns.reshape(*groups, columns.shape[channels], -1)
            product = _matrices.product(problem, w, matrix, (w.ndim - 2,), (w.ndim - 2,))
            return product.reshape(*groups, 1, -1, *extents)
        matrix = columns.reshape(*groups, -1, columns.shape[channels])
        if outputs_lead:
            product = _matrices.product(problem, matrix, w, (1,), (1,))
        else:
            product = _matrices.product_of_rows(problem, matrix, w, once.platform)
        return product.reshape(*columns.shape[:-1], product.shape[-1])

    def add(product: jax.Array) -> jax.Array:
        steps = spec.strides[:leading] + (1,) * (ndim - leading)
        if late:
            # Once, not in each of the terms that read it.
            product = lax.optimization_barrier(_windows.pad(problem, product, layout, late))
        sums = []
        for number, start in enumerate(itertools.product(*offsets[:leading], *[[0]] * (ndim - leading))):
            first, last = number * problem.out_channels, (number + 1) * problem.out_channels
            columns = lax.slice_in_dim(product, first, last, axis=channels)
            sums.append(_windows.window(columns, layout, start, problem.output_shape, steps))
        return functools.reduce(jnp.add, sums)

    def compute(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        y = _windows.zeros_like(x, shape).astype(accumulation_dtype(spec.out_dtype))
        if chunk == problem.batch:
            part = add(multiply(starts, x, w))
            return _matrices.put_groups(part, y) if joined else part

        def step(number: jax.Array, y: jax.Array) -> jax.Array:
            # The last chunk may begin before the one in front of it ends, and then computes some items once more.
            start = jnp.minimum(number * chunk, problem.batch - chunk)
            part = add(multiply(starts, pad(lax.dynamic_slice_in_dim(x, start, chunk, where)), w))
            if joined:
                return _matrices.put_groups(part, y, start)
            return lax.dynamic_update_slice_in_dim(y, part, start, where)

        return lax.fori_loop(0, -(-problem.batch // chunk), step, y)

    # [g, o, c, *K] -> [g, (*rest, c), (*first, o)], or [(*first, o), c] where the kernel is held so.
    w = w.transpose(_order_of_kernel(problem, leading))
    w = w.reshape((-1, problem.in_channels) if outputs_lead else (*groups, windows * problem.in_channels, -1))
    x = layout.arrange(x)
    x = pad(x) if chunk == problem.batch else x
    y = _matrices.without_units(once, compute, shape, offsets[leading:], x, w)
    if joined:
        y = y.reshape(*shape[:-1], problem.groups, problem.out_channels)
        layout = _windows.Layout((1, *space, 0, 2))
    return layout.undo(y, 3 + ndim)


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Convolve canonical operands, calling what must not be evaluated repeatedly by `once`."""
    spec = problem.spec
    if _outputs.applies(problem) or not x.dtype == w.dtype == _matrices.factors(problem):
        accumulator = accumulation_dtype(spec.out_dtype)
        x, w = x.astype(accumulator), w.astype(accumulator)
    compute = _outputs.run if _outputs.applies(problem) else _sum_over_taps
    return compute(problem, x, _windows.as_correlation(problem, w), once).astype(spec.out_dtype)
