"""Matrix products over windows: dense layers with kernels of a few taps, in any number of dimensions.

Written out over the taps. The kernel's axes are split into leading and trailing ones, ``k = (a, b)``. The windows
that the trailing taps read are gathered side by side and multiplied, in one product, by the weights of all leading
taps; then the shifted parts of that product are added up::

    p[q, (a, o)] = sum_{b, c} x[q, b * rhs_dilation + ..., c] w[a, b, c, o]
    y[m, o] = sum_a p[m * stride + a * rhs_dilation, (a, o)]

With no leading axis this is im2col. With no trailing one nothing is gathered: each sample is multiplied by all
weights, and what is moved are outputs, which pays where there are fewer of those than of inputs. The split is the one
that moves the fewest elements. Along leading axes products are padded and dilated rather than the input, if they are
narrower.

Written out over the outputs, where these are few, as in the kernel gradient: the windows that all outputs read of the
input are gathered side by side, and one product with the kernel sums over positions and channels. (To gather windows of
a smaller kernel instead, extended by zeros, would multiply samples by zeros that the definition does not, and so spread
NaN and infinities: see `jaxconv._algorithms.exchange`.)

What is gathered or summed later is formed for a few items of the batch at a time, so that it stays in the caches:
larger temporaries are mapped afresh by the allocator at every call, and their page faults cost more than the
arithmetic. Channels are contracted where the caller has them, in front of the positions or behind, so that no operand
is transposed.

Cost: every multiply-add of the definition, those that meet padding included, at the rate of a matrix product, and the
traffic of windows and of products that are summed later. Windows and terms are written out in the program, so that
their number is bounded.

Error: that of a sum of N products in any order, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2002, section 3.1). Half precision is summed in float32.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._algorithms._once import DIVIDED, Call
from jaxconv._cost import Cost, direct_error, fresh, idle
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, dilated

MAX_TERMS = 64
MAX_WINDOWS = 128
MAX_OUTPUTS = 64
# Windows and products of more than WHOLE bytes are formed for some items of the batch at a time, CHUNK bytes together;
# those that are summed over positions, for some input channels or for a part of one, in chunks that stay in the cache.
WHOLE = 12 * 2**20
CHUNK = 8 * 2**20
SUMMED_WHOLE = 8 * 2**20
SUMMED_CHUNK = 2 * 2**20
# XLA on CPU multiplies rows of floats, of more than two, up to four times faster if their length is a multiple of EVEN.
# That is worth a copy of up to LONG, and some zeros more in windows of up to LONG_WINDOW, which are copied anyway.
EVEN = 4
LONG = 8
LONG_WINDOW = 24
# Items of so many bytes are computed one at a time, rather than transposed, where the caller has channels first.
ITEM = 2**20
# Sums over positions, of FLAT multiply-adds or more, are products of matrices if one has at most NARROW columns and the
# other at most SIMILAR times as many: with more of them XLA on CPU is up to nine times slower.
FLAT = 2**18
NARROW = 48
SIMILAR = 3


def _over_outputs(problem: Problem) -> bool:
    """Whether to write out the outputs rather than the taps."""
    return problem.outputs <= MAX_OUTPUTS and problem.outputs < problem.taps


def _split(problem: Problem) -> int | None:
    """Return how many leading axes of the kernel are summed after the product; None if no number is admissible.

    The one that moves the fewest elements: those of a window are written by a strided copy and read again, those of a
    product that is summed later are written and read.
    """

    def moved(leading: int) -> float:
        terms, windows = _counts(problem, leading)
        gathered = 3 * problem.in_channels * windows if windows > 1 else 0
        products = problem.out_channels * terms * (2 if terms > 1 else 1)
        return (gathered + products) * math.prod(problem.spec.strides[:leading])

    admissible = []
    for leading in range(problem.spec.ndim + 1):
        terms, windows = _counts(problem, leading)
        if terms <= MAX_TERMS and windows <= MAX_WINDOWS:
            admissible.append(leading)
    return min(admissible, key=moved, default=None)


def _counts(problem: Problem, leading: int) -> tuple[int, int]:
    """Return the number of taps on the leading axes, and on the others."""
    return math.prod(problem.kernel_shape[:leading]), math.prod(problem.kernel_shape[leading:])


def supports(problem: Problem) -> str | None:
    """Return the reason if there is nothing to form matrices of or the products would be too many, else None."""
    if _over_outputs(problem):
        return "sums of a single channel, not matrix products" if problem.batch * problem.out_channels == 1 else None
    if problem.in_channels * problem.out_channels == 1:
        return "sums of a single channel, not matrix products"
    if _split(problem) is None:
        return (
            f"would write out more than {MAX_WINDOWS} windows or {MAX_TERMS} terms for a kernel of "
            f"{problem.kernel_shape}, or {problem.outputs} outputs (at most {MAX_OUTPUTS})"
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


def _channels_first(problem: Problem, items: int) -> bool:
    """Whether to leave channels in front of the positions, for items that are computed one at a time if there are more.

    Several items would have to be transposed, the channels to the front or to the end, which is what small ones are.
    """
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * sum(map(math.prod, (problem.x_shape, problem.w_shape, problem.y_shape)))
    return problem.spec.layout == "channels_first" and (items == 1 or size >= ITEM * items)


def _padded(problem: Problem, leading: int) -> int:
    """Return how many elements padding copies, those of the input or of products that are summed later."""
    if not _pads_products(problem, leading):
        return _windows.padded_size(problem)
    terms, _ = _counts(problem, leading)
    behind = math.prod(problem.output_shape[leading:])
    products = dataclasses.replace(problem, in_channels=problem.out_channels * terms)
    products = _windows.padded_size(products, range(leading)) // math.prod(problem.input_shape[leading:]) * behind
    return products + _windows.padded_size(problem, range(leading, problem.spec.ndim))


def _gap(problem: Problem, leading: int) -> int:
    """Return how many zeros to append to the windows at each position."""
    _, windows = _counts(problem, leading)
    length, most = problem.in_channels * windows, LONG_WINDOW if windows > 1 else LONG
    is_single = accumulation_dtype(problem.spec.out_dtype) == np.float32
    return -length % EVEN if is_single and 2 < length <= most and not _channels_first(problem, problem.batch) else 0


def _chunk(problem: Problem, leading: int) -> int:
    """Return for how many items of the batch to form windows and products at a time."""
    if _channels_first(problem, problem.batch):
        return 1
    terms, windows = _counts(problem, leading)
    width = problem.in_channels * windows * (windows > 1) + problem.out_channels * terms * (terms > 1)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * problem.groups * _positions(problem, leading) * width * problem.batch
    return _items_at_a_time(problem.batch, size, CHUNK) if size > WHOLE else problem.batch


def _chunk_for_outputs(problem: Problem) -> int:
    """Return for how many input channels to gather windows at a time."""
    if _channels_first(problem, problem.in_channels):
        return 1
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * _gathered(problem)
    return _items_at_a_time(problem.in_channels, size, SUMMED_CHUNK) if size > SUMMED_WHOLE else problem.in_channels


def _rows(problem: Problem) -> int:
    """Return for how many taps of the first axis to gather the windows of an input channel at a time."""
    chunk, rows = _chunk_for_outputs(problem), problem.kernel_shape[0]
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * _gathered(problem) // problem.in_channels
    return _items_at_a_time(rows, size, SUMMED_CHUNK) if chunk == 1 and size > SUMMED_WHOLE else rows


def _gathered(problem: Problem) -> int:
    """Return how many elements the windows of all outputs have; a single one is the input itself."""
    if problem.outputs == 1:
        return 0
    return problem.groups * problem.in_channels * problem.taps * problem.batch * problem.outputs


def _items_at_a_time(items: int, size: int, most: int) -> int:
    """Divide items of so many bytes together into chunks of at most so many, but of one item at least."""
    chunks = min(max(-(-size // most), 1), items)
    chunk = -(-items // chunks)
    # Where nothing is left over, no item is computed twice.
    return next((divisor for divisor in range(chunk, chunk // 2, -1) if items % divisor == 0), chunk)


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it merges with others or takes apart, so that their devices exchange data."""
    if _over_outputs(problem):
        merged = {"batch": problem.outputs > 1, "in_channels": _chunk_for_outputs(problem) < problem.in_channels}
    else:
        leading = _split(problem) or 0
        terms, windows = _counts(problem, leading)
        chunked = _chunk(problem, leading) < problem.batch
        merged = {"in_channels": windows > 1, "out_channels": terms > 1, "batch": chunked}
    return tuple(axis for axis, is_merged in merged.items() if is_merged)


def cost(problem: Problem) -> Cost:
    """Return the cost of the products and of the traffic between them."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    spatial = tuple(range(3, 3 + problem.spec.ndim))
    x_order, w_order, y_order = _windows.stored_orders(problem)
    result = math.prod(problem.y_shape)
    if _over_outputs(problem):
        padded, windows = _windows.padded_size(problem), _gathered(problem)
        wanted = x_order if _channels_first(problem, problem.in_channels) else (0, 2, *spatial, 1)
        moved = [
            _windows.moves(problem.x_shape, x_order, wanted),
            _windows.moves(problem.w_shape, w_order, wanted),
            _windows.moves(problem.y_shape, (0, 2, *spatial, 1), y_order),
        ]
        products, multiply_adds = result, problem.multiply_adds
        chunks = -(-problem.in_channels // _chunk_for_outputs(problem)) * -(-problem.kernel_shape[0] // _rows(problem))
        form, narrow, scratch = "outputs", problem.out_channels, (padded + windows) // chunks + 2 * result
        uneven = 0
    else:
        leading = _split(problem) or 0
        (terms, count), gap = _counts(problem, leading), _gap(problem, leading)
        wanted = x_order if _channels_first(problem, problem.batch) else (0, 1, *spatial, 2)
        moved = [
            _windows.moves(problem.x_shape, x_order, wanted),
            _windows.moves(problem.y_shape, wanted, y_order),
        ]
        items = problem.groups * problem.batch * _positions(problem, leading)
        windows = items * (problem.in_channels * count + gap if count > 1 or gap else 0)
        products = items * problem.out_channels * terms
        padded = _padded(problem, leading)
        multiply_adds = products * problem.in_channels * count
        chunks = -(-problem.batch // _chunk(problem, leading))
        summed_later = products if terms > 1 else 0
        form, narrow, scratch = "taps", problem.out_channels * terms, (padded + windows + summed_later) // chunks
        uneven = items * (problem.in_channels * count > LONG and not gap and problem.in_channels * count % EVEN > 0)
    if problem.groups > 1:
        form = f"grouped {form}"
    return Cost(
        multiply_adds=multiply_adds,
        transform_flops=0,
        bytes_moved=itemsize * (padded + 2 * windows + 2 * products),
        scratch=itemsize * scratch,
        error=direct_error(problem),
        terms={
            "call": 1,
            "products": chunks * problem.groups,
            "divided": multiply_adds >= DIVIDED,
            "padded": itemsize * padded,
            **_windows.total_moves(*moved),
            "fresh": fresh(itemsize * scratch, itemsize * result),
            f"{form} windows": windows,
            f"{form} results": products,
            f"{form} multiply_adds": multiply_adds,
            f"{form} idle": idle(multiply_adds, narrow),
            f"{form} uneven": uneven,
        },
    )


def _layout(problem: Problem, *order: int) -> _windows.Layout:
    """Return a layout without the axis of the groups where there is but one."""
    return _windows.Layout(tuple(axis for axis in order if axis or problem.groups > 1))


def _without_units(
    once: Call,
    function: Callable[..., jax.Array],
    shape: Sequence[int],
    starts: Sequence[Sequence[int]],
    *operands: jax.Array,
) -> jax.Array:
    """Compute a function of windows' positions and operands, whose result is of a known shape, once.

    Axes of length 1 are left out on the way: XLA on CPU copies what enters or leaves a call if they stand elsewhere
    than by default. It gathers each window in a loop of its own, all of which are equal if it does not see where the
    windows begin.
    """

    def inside(starts: Any, *arrays: jax.Array) -> jax.Array:
        whole = (lax.reshape(array, operand.shape) for array, operand in zip(arrays, operands, strict=True))
        return _squeezed(function(starts, *whole))

    arrays = map(_squeezed, operands)
    if math.prod(map(len, starts)) == 1:
        y = once.apart(functools.partial(inside, starts), *arrays)
    else:
        hidden, read = once.hidden(starts)
        y = once.apart(lambda starts, *arrays: inside(read(starts), *arrays), hidden, *arrays)
    return lax.reshape(y, shape)


def _squeezed(array: jax.Array) -> jax.Array:
    return lax.reshape(array, [size for size in array.shape if size > 1])


def _sum_over_taps(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    spec, ndim, leading = problem.spec, problem.spec.ndim, _split(problem) or 0
    _, windows = _counts(problem, leading)
    space, groups = range(3, 3 + ndim), (problem.groups,) if problem.groups > 1 else ()
    channels_first = _channels_first(problem, problem.batch)
    layout = _layout(problem, *((0, 1, 2, *space) if channels_first else (0, 1, *space, 2)))
    channels, where = layout.order.index(2), layout.order.index(1)
    chunk, gap = _chunk(problem, leading), _gap(problem, leading)
    offsets = [[k * d for k in range(taps)] for taps, d in zip(problem.kernel_shape, spec.rhs_dilation, strict=True)]
    outputs_lead = spec.kernel_exchanged and windows == 1 and not (groups or gap or channels_first)
    late = range(leading) if _pads_products(problem, leading) else range(0)
    pad = functools.partial(_windows.pad, problem, layout=layout, axes=range(len(late), ndim))

    def multiply(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        shape = (*(x.shape[axis] for axis in layout.spatial[:leading]), *problem.output_shape[leading:])
        steps = (1,) * leading + spec.strides[leading:]
        columns = _windows.side_by_side(x, layout, channels, [[0]] * leading + list(starts), shape, steps, gap)
        if channels_first:  # of a single item
            matrix = columns.reshape(*groups, columns.shape[channels], -1)
            product = _product(problem, w, matrix, (w.ndim - 2,), (w.ndim - 2,))
            return product.reshape(*groups, 1, -1, *shape)
        matrix = columns.reshape(*groups, -1, columns.shape[channels])
        product = _product(problem, matrix, w, (w.ndim - 1,), (w.ndim - 1 if outputs_lead else w.ndim - 2,))
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
        if chunk == problem.batch:
            return add(multiply(starts, x, w))

        def step(number: jax.Array, y: jax.Array) -> jax.Array:
            # The last chunk may begin before the one in front of it ends, and then computes some items once more.
            start = jnp.minimum(number * chunk, problem.batch - chunk)
            items = lax.dynamic_slice_in_dim(x, start, chunk, where)
            return lax.dynamic_update_slice_in_dim(y, add(multiply(starts, pad(items), w)), start, where)

        y = _windows.zeros_like(x, tuple(problem.y_shape[axis] for axis in layout.order))
        return lax.fori_loop(0, -(-problem.batch // chunk), step, y)

    # [g, o, c, *K] -> [g, (*rest, c), (*first, o)], or [(*first, o), c] where the kernel is held so.
    first, rest = range(3, 3 + leading), range(3 + leading, 3 + ndim)
    if outputs_lead:
        w = w.transpose(0, *rest, *first, 1, 2).reshape(-1, problem.in_channels)
    else:
        w = w.transpose(0, *rest, 2, *first, 1).reshape(*groups, windows * problem.in_channels, -1)
        w = lax.pad(w, jnp.zeros((), w.dtype), [(0, 0, 0) for _ in groups] + [(0, gap, 0), (0, 0, 0)]) if gap else w
    x = layout.arrange(x)
    x = pad(x) if chunk == problem.batch else x
    shape = [problem.y_shape[axis] for axis in layout.order]
    return layout.undo(_without_units(once, compute, shape, offsets[leading:], x, w), 3 + ndim)


def _products_for_outputs(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    spec, ndim = problem.spec, problem.spec.ndim
    space, groups = range(3, 3 + ndim), (problem.groups,) if problem.groups > 1 else ()
    channels_first = _channels_first(problem, problem.in_channels)
    layout = _layout(problem, *((0, 1, 2, *space) if channels_first else (0, 2, *space, 1)))
    where, items = layout.order.index(2), layout.order.index(1)
    chunk = _chunk_for_outputs(problem)
    # [g, o, (c, *K)] [g, (*M, n), (c, *K)] -> [g, o, (*M, n)], or with what is summed in front. XLA on CPU multiplies
    # several times faster if the wider factor leads there, and the narrower one here, unless it is given matrices:
    # those it multiplies as they are, which is faster if one is narrow, and does not transpose one of them first.
    wide = problem.outputs * problem.batch
    fewer, more = sorted((wide, problem.out_channels))
    flat = not groups and not channels_first and problem.multiply_adds >= FLAT
    flat = flat and fewer <= NARROW and more <= SIMILAR * fewer
    # The columns lead those, unless they are much narrower: so a channels-last caller holds the gradient of a kernel.
    columns_lead = 2 * wide >= problem.out_channels if flat else (wide > problem.out_channels) == channels_first
    product_shape = (*groups, *((wide, problem.out_channels) if columns_lead else (problem.out_channels, wide)))
    offsets = [[m * s for m in range(size)] for size, s in zip(problem.output_shape, spec.strides, strict=True)]
    pad = functools.partial(_windows.pad, problem, layout=layout)

    def multiply(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        shape = [w.shape[axis] for axis in layout.spatial]
        columns = _windows.side_by_side(x, layout, items, starts, shape, spec.rhs_dilation)
        if channels_first:
            w, columns = (array.reshape(*groups, array.shape[items], -1) for array in (w, columns))
        elif flat:
            w, columns = (array.reshape(-1, array.shape[items]) for array in (w, columns))
        kept = len(groups) if channels_first else w.ndim - 1
        summed = [axis for axis in range(len(groups), w.ndim) if axis != kept]
        return _product(problem, *((columns, w) if columns_lead else (w, columns)), summed, summed)

    def by_rows(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        axis, (taps, *_), rows = layout.spatial[0], problem.kernel_shape, _rows(problem)
        stride, dilation, reach = spec.strides[0], spec.rhs_dilation[0], problem.output_shape[0]

        def part(start: jax.Array | int, rows: int) -> jax.Array:
            extent = dilated(rows, dilation) + (reach - 1) * stride
            window = lax.dynamic_slice_in_dim(x, start * dilation, extent, axis)
            return multiply(starts, window, lax.dynamic_slice_in_dim(w, start, rows, axis))

        if rows == taps:
            return multiply(starts, x, w)
        total = _windows.zeros_like(x, product_shape)
        total = lax.fori_loop(0, taps // rows, lambda number, total: total + part(number * rows, rows), total)
        left = taps % rows
        return total + part(taps - left, left) if left else total

    def compute(starts: Any, x: jax.Array, w: jax.Array) -> jax.Array:
        if chunk == problem.in_channels:
            return by_rows(starts, x, w)

        def step(number: jax.Array, total: jax.Array) -> jax.Array:
            start = jnp.minimum(number * chunk, problem.in_channels - chunk)
            operands = [lax.dynamic_slice_in_dim(operand, start, chunk, where) for operand in (x, w)]
            if problem.in_channels % chunk:
                # The last chunk begins before the one in front of it ends, with channels that are summed already.
                new = start + lax.broadcasted_iota(start.dtype, (chunk,), 0) >= number * chunk
                shape = [chunk if axis == where else 1 for axis in range(x.ndim)]
                operands = [jnp.where(new.reshape(shape), operand, 0) for operand in operands]
            return total + by_rows(starts, pad(operands[0]), operands[1])

        total = _windows.zeros_like(x, product_shape)
        return lax.fori_loop(0, -(-problem.in_channels // chunk), step, total)

    x, w = layout.arrange(x), layout.arrange(w)
    x = pad(x) if chunk == problem.in_channels else x
    y = _without_units(once, compute, product_shape, offsets, x, w)
    # Split first, so that XLA sees one transposition to what the caller holds.
    if columns_lead:
        y = y.reshape(problem.groups, *problem.output_shape, problem.batch, problem.out_channels)
        return y.transpose(0, 1 + ndim, 2 + ndim, *range(1, 1 + ndim))
    y = y.reshape(problem.groups, problem.out_channels, *problem.output_shape, problem.batch)
    return y.transpose(0, 2 + ndim, 1, *range(2, 2 + ndim))


def _product(
    problem: Problem, a: jax.Array, b: jax.Array, contracted_a: Sequence[int], contracted_b: Sequence[int]
) -> jax.Array:
    """Multiply matrices, those of each group if there are several."""
    batched = ((0,), (0,)) if problem.groups > 1 else ((), ())
    contracted = (tuple(contracted_a), tuple(contracted_b))
    return lax.dot_general(a, b, (contracted, batched), precision=problem.spec.precision)


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Convolve canonical operands, calling what must not be evaluated repeatedly by `once`."""
    spec = problem.spec
    accumulator = accumulation_dtype(spec.out_dtype)
    x, w = x.astype(accumulator), w.astype(accumulator)
    if spec.convention == "convolution":
        w = lax.rev(w, tuple(range(3, 3 + spec.ndim)))
    compute = _products_for_outputs if _over_outputs(problem) else _sum_over_taps
    return compute(problem, x, w, once).astype(spec.out_dtype)
