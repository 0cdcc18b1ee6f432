"""Matrix products over windows: dense layers with kernels of a few taps, in any number of dimensions.

Written out over the taps. The kernel's axes are split into leading and trailing ones, ``k = (a, b)``. The windows
that the trailing taps read are gathered side by side and multiplied, in one product, by the weights of all leading
taps; then the shifted parts of that product are added up::

    p[q, (a, o)] = sum_{b, c} x[q, b * rhs_dilation + ..., c] w[a, b, c, o]
    y[m, o] = sum_a p[m * stride + a * rhs_dilation, (a, o)]

With no leading axis this is im2col. With no trailing one nothing is gathered: each sample is multiplied by all
weights, and what is moved are outputs, which pays where there are fewer of those than of inputs. The split is the one
that moves the fewest elements.

Written out over the outputs, where these are few, as in the kernel gradient: the windows that all outputs read of the
input are gathered side by side, and one product with the kernel sums over positions and channels. (To gather windows of
a smaller kernel instead, extended by zeros, would multiply samples by zeros that the definition does not, and so spread
NaN and infinities.)

What is gathered or summed later is formed for a few items of the batch at a time, so that it stays in the caches:
larger temporaries are mapped afresh by the allocator at every call, and their page faults cost more than the
arithmetic.

Cost: every multiply-add of the definition, those that meet padding included, at the rate of a matrix product, and the
traffic of windows and of products that are summed later. Windows and terms are written out in the program, so that
their number is bounded.

Error: that of a sum of N products in any order, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2002, section 3.1). Half precision is summed in float32.
"""

import functools
import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._algorithms._once import Call
from jaxconv._cost import Cost, direct_error, idle
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, dilated

MAX_TERMS = 64
MAX_WINDOWS = 128
MAX_OUTPUTS = 64
# Windows and products of more than WHOLE bytes are formed for some items of the batch at a time, CHUNK bytes together;
# those that are summed over positions, for some input channels, in chunks that stay in the cache.
WHOLE = 12 * 2**20
CHUNK = 8 * 2**20
SUMMED_WHOLE = 8 * 2**20
SUMMED_CHUNK = 2 * 2**20


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


def _positions(problem: Problem, leading: int) -> int:
    """Return how many positions of an item of the batch the product is formed at."""
    positions = math.prod(problem.output_shape[leading:])
    for axis in range(leading):
        low, high = problem.spec.padding[axis]
        positions *= dilated(problem.input_shape[axis], problem.spec.lhs_dilation[axis]) + low + high
    return positions


def _chunk(problem: Problem, leading: int) -> int:
    """Return for how many items of the batch to form windows and products at a time."""
    terms, windows = _counts(problem, leading)
    width = problem.in_channels * windows * (windows > 1) + problem.out_channels * terms * (terms > 1)
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * problem.groups * _positions(problem, leading) * width * problem.batch
    return _items_at_a_time(problem.batch, size, CHUNK) if size > WHOLE else problem.batch


def _chunk_for_outputs(problem: Problem) -> int:
    """Return for how many input channels to gather windows at a time."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    size = itemsize * _gathered(problem)
    return _items_at_a_time(problem.in_channels, size, SUMMED_CHUNK) if size > SUMMED_WHOLE else problem.in_channels


def _gathered(problem: Problem) -> int:
    """Return how many elements the windows of all outputs have; a single one is the input itself."""
    if problem.outputs == 1:
        return 0
    return problem.groups * problem.in_channels * problem.taps * problem.batch * problem.outputs


def _items_at_a_time(items: int, size: int, most: int) -> int:
    """Divide items of so many bytes together into chunks of at most so many, but of one item at least."""
    chunks = min(max(-(-size // most), 1), items)
    return -(-items // chunks)


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
    padded = _windows.padded_size(problem)
    result = math.prod(problem.y_shape)
    if _over_outputs(problem):
        windows = _gathered(problem)
        products, multiply_adds = result, problem.multiply_adds
        chunks = -(-problem.in_channels // _chunk_for_outputs(problem))
        form, narrow, scratch = "outputs", problem.out_channels, padded + windows // chunks + 2 * result
    else:
        leading = _split(problem) or 0
        terms, count = _counts(problem, leading)
        items = problem.groups * problem.batch * _positions(problem, leading)
        windows = items * problem.in_channels * (count if count > 1 else 0)
        products = items * problem.out_channels * terms
        multiply_adds = products * problem.in_channels * count
        chunks = -(-problem.batch // _chunk(problem, leading))
        form, narrow, scratch = "taps", problem.out_channels * terms, padded + (windows + products) // chunks
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
            "padded": itemsize * padded,
            f"{form} windows": windows,
            f"{form} results": products,
            f"{form} multiply_adds": multiply_adds,
            f"{form} idle": idle(multiply_adds, narrow),
        },
    )


def _sum_over_taps(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    spec, ndim, leading = problem.spec, problem.spec.ndim, _split(problem) or 0
    terms, windows = _counts(problem, leading)
    first, rest = range(3, 3 + leading), range(3 + leading, 3 + ndim)
    # [g, o, c, *K] -> [g, (*rest, c), (*first, o)]
    w = w.transpose(0, *rest, 2, *first, 1)
    w = w.reshape(problem.groups, windows * problem.in_channels, terms * problem.out_channels)
    layout = _windows.Layout((0, 1, *range(3, 3 + ndim), 2))
    x = x.transpose(layout.order)
    chunk = _chunk(problem, leading)
    pad = functools.partial(_windows.pad, problem, layout=layout)

    def window(x: jax.Array, tap: tuple[int, ...]) -> jax.Array:
        start = [0] * leading + [k * d for k, d in zip(tap, spec.rhs_dilation[leading:], strict=True)]
        shape = (*x.shape[2 : 2 + leading], *problem.output_shape[leading:])
        return _windows.window(x, layout, start, shape, (1,) * leading + spec.strides[leading:])

    def term(product: jax.Array, number: int, tap: tuple[int, ...]) -> jax.Array:
        start = [k * d for k, d in zip(tap, spec.rhs_dilation[:leading], strict=True)] + [0] * (ndim - leading)
        steps = spec.strides[:leading] + (1,) * (ndim - leading)
        columns = lax.slice_in_dim(product, number * problem.out_channels, (number + 1) * problem.out_channels, axis=-1)
        return _windows.window(columns, layout, start, problem.output_shape, steps)

    def multiply(x: jax.Array, w: jax.Array) -> jax.Array:
        columns = [window(x, tap) for tap in _windows.positions(problem.kernel_shape[leading:])]
        columns = lax.concatenate(columns, ndim + 2) if windows > 1 else columns[0]
        contraction = (((ndim + 2,), (1,)), ((0,), (0,)))
        return lax.dot_general(columns, w, contraction, precision=spec.precision)

    def add(product: jax.Array) -> jax.Array:
        taps = enumerate(_windows.positions(problem.kernel_shape[:leading]))
        return functools.reduce(jnp.add, [term(product, number, tap) for number, tap in taps])

    if chunk < problem.batch:
        y = lax.map(lambda items: add(multiply(pad(items), w)), _chunks(x, chunk, axis=1))
        y = jnp.moveaxis(y, 0, 1).reshape(problem.groups, -1, *y.shape[3:])[:, : problem.batch]
    else:
        y = once(terms * windows, lambda x, w: add(multiply(x, w)), pad(x), w)
    return layout.undo(y)


def _products_for_outputs(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    spec, ndim = problem.spec, problem.spec.ndim
    layout = _windows.Layout((0, 2, *range(3, 3 + ndim), 1))
    x, w = x.transpose(layout.order), w.transpose(layout.order)
    pad = functools.partial(_windows.pad, problem, layout=layout)

    def multiply(x: jax.Array, w: jax.Array) -> jax.Array:
        columns = [_windows.of_output(problem, x, layout, m) for m in _windows.positions(problem.output_shape)]
        # [g, c, *K, o] [g, c, *K, (*M, n)] -> [g, o, (*M, n)]
        contracted = tuple(range(1, ndim + 2))
        dimensions = ((contracted, contracted), ((0,), (0,)))
        return lax.dot_general(w, lax.concatenate(columns, ndim + 2), dimensions, precision=spec.precision)

    chunk = _chunk_for_outputs(problem)
    if chunk < problem.in_channels:
        xs, ws = (_chunks(operand, chunk, axis=1) for operand in (x, w))
        total = _zeros_like(x, jax.eval_shape(multiply, pad(xs[0]), ws[0]).shape)
        y = lax.fori_loop(0, len(xs), lambda i, total: total + multiply(pad(xs[i]), ws[i]), total)
    else:
        y = once(problem.outputs, multiply, pad(x), w)
    y = y.reshape(problem.groups, problem.out_channels, *problem.output_shape, problem.batch)
    return jnp.moveaxis(y, -1, 1)


def _chunks(operand: jax.Array, chunk: int, axis: int) -> jax.Array:
    """Cut an axis into chunks, the last of which zeros fill up, along a new leading axis."""
    size = operand.shape[axis]
    count = -(-size // chunk)
    config = [(0, 0, 0)] * operand.ndim
    config[axis] = (0, count * chunk - size, 0)
    operand = lax.pad(operand, jnp.zeros((), operand.dtype), config)
    operand = operand.reshape(*operand.shape[:axis], count, chunk, *operand.shape[axis + 1 :])
    return jnp.moveaxis(operand, axis, 0)


def _zeros_like(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return zeros that, inside `jax.shard_map`, vary over the mesh axes that an array varies over."""
    zeros = jnp.zeros(shape, array.dtype)
    varying = jax.typeof(array).manual_axis_type.varying
    return lax.pcast(zeros, tuple(sorted(varying)), to="varying") if varying else zeros


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Convolve canonical operands, calling what must not be evaluated repeatedly by `once`."""
    spec = problem.spec
    accumulator = accumulation_dtype(spec.out_dtype)
    x, w = x.astype(accumulator), w.astype(accumulator)
    if spec.convention == "convolution":
        w = lax.rev(w, tuple(range(3, 3 + spec.ndim)))
    compute = _products_for_outputs if _over_outputs(problem) else _sum_over_taps
    return compute(problem, x, w, once).astype(spec.out_dtype)
