"""Sum of shifted slices: few taps with few channels, depthwise layers, stencils.

``y[m] = sum_k w[k] x[m * stride + k * rhs_dilation]`` is written out as one term for each tap (and input channel), each
a strided slice of the padded input times a scalar, which XLA fuses into a single vectorised loop over the outputs. Of
several axes the loop runs over the last; where that is too short for vector instructions it runs on into the next row
of the padded input, and what it sums between rows is dropped.
Where there are fewer outputs than taps, as in the kernel gradient of a long signal, the roles change: one sum over a
window is written out for each output (see `jaxconv._algorithms._window_sums`).

Cost: every multiply-add of the definition but none of im2col's traffic. The terms are unrolled in the program, so that
their number is bounded: the time to compile grows with it. Those of many taps are unrolled for a few rows of the kernel
at a time, in the rounds of a loop (see `jaxconv._algorithms._rows`).

Error: that of a sum of N products, ``|error| <= (N + 1) eps (|w| * |x|)`` elementwise (Higham, *Accuracy and Stability
of Numerical Algorithms*, 2002, section 3.1). Half precision is summed in float32; integers wrap modulo their range.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _in_rows, _rows, _sums, _window_sums, _windows
from jaxconv._algorithms._once import DIVIDED, Call
from jaxconv._cost import Cost, fresh
from jaxconv._dtypes import accumulation_dtype, is_complex
from jaxconv._spec import Problem, dilated

MAX_TERMS = 256
# With so many terms to a sum, an innermost axis that is too short is worth two transpositions; with MANY_ALONE one of
# fewer than ALONE groups, along which no sample is read twice.
MANY_TERMS = 32
MANY_ALONE = 12
ALONE = 4
# Up to so many taps are padded each where it reads, without a copy: in one or two dimensions, around a long axis.
FEW = 4
LONG = 16
# So many terms cost as much as copying what is left when sums between rows are dropped.
DROPPING = 8
# Rows that begin a multiple of PAGE bytes apart share their places in the first cache. If taps read more than SHARING
# of them together, these displace each other: such rows are put WIDER elements further apart.
PAGE = 4096
SHARING = 10
WIDER = 16


def _terms(problem: Problem) -> int:
    return problem.taps * problem.in_channels


def supports(problem: Problem) -> str | None:
    """Return the reason if both unrolled forms would be too long, else None."""
    if _window_sums.applies(problem) or _terms(problem) <= MAX_TERMS:
        return None
    return (
        f"would unroll {_terms(problem)} terms (at most {MAX_TERMS}), or {problem.outputs} outputs (at most "
        f"{_window_sums.WINDOWS} in each of at most {_window_sums.MAX_ROUNDS} rounds, of a single channel or of all "
        "pairs of channels in groups)"
    )


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it takes apart, so that their devices exchange data: it sums channel by channel."""
    return ("in_channels",)


def cost(problem: Problem) -> Cost:
    """Return the cost of the unrolled form that `run` takes."""
    return (_window_sums.work if _window_sums.applies(problem) else _work)(problem).cost(problem)


def _work(problem: Problem) -> _sums.Work:
    outputs, inputs, padded = math.prod(problem.y_shape), math.prod(problem.x_shape), _windows.padded_size(problem)
    order, wanted = _order(problem), _order_of_sums(problem)
    sums, row = problem.multiply_adds, _joined(problem)
    innermost = problem.y_shape[_sums.innermost(wanted, problem.y_shape)]
    if row:
        sums *= row / innermost
        innermost *= row
    division = _division(problem)
    is_long = division is None and _in_rows.long_axis(problem) is not None and sums >= DIVIDED
    # Where each tap is padded on its own its loop asks of every sample whether it is there.
    alone = _in_rows.pads_alone(problem) if is_long else _pads_alone(problem)
    channels_first = (2, *(axis for axis in wanted if axis != 2))
    moved = _windows.total_moves(
        _windows.moves(problem.x_shape, order, channels_first),
        _windows.moves(problem.y_shape, wanted, problem.spec.orders[2]),
    )
    return _sums.Work(
        sums=sums,
        innermost=innermost,
        padded=0 if alone else max(padded, inputs) if _wider(problem) else padded,
        copied=outputs if row or (is_long and _in_rows.joins(problem)) else 0,
        # Each round copies what it reads, and adds to the result.
        rounds=division.rounds if division else 0,
        copied_each=max(padded, inputs) + outputs if division else 0,
        terms={
            "sums" if problem.out_channels == 1 else "outer sums": sums,
            # Sums over many channels spill registers, and strides scatter what neighbours read.
            "deep sums": sums * min(problem.in_channels / MANY_TERMS, 1.0),
            "strided sums": sums * any(stride > 1 for stride in problem.spec.strides),
            "padded sums": sums * alone,
            **moved,
        },
    )


def _order(problem: Problem) -> tuple[int, ...]:
    """Return the order of the canonical axes (of operands and result) in the caller's layout."""
    return problem.spec.orders[0]


def _order_of_sums(problem: Problem) -> tuple[int, ...]:
    """Return the order of the result's canonical axes in which to sum over taps.

    That is the caller's, except where there are many terms to a sum and the innermost axis is too short for vector
    instructions: then the longest axis comes last.
    """
    order, shape = _order(problem), problem.y_shape
    innermost = _sums.innermost(order, shape)
    alone = innermost == 0 and shape[innermost] < ALONE
    if _terms(problem) < (MANY_ALONE if alone else MANY_TERMS) or shape[innermost] >= _sums.SHORT:
        return order
    longest = max(reversed(order), key=lambda axis: shape[axis])
    return (*(axis for axis in order if axis != longest), longest)


def _joined(problem: Problem) -> int:
    """Return how long a padded row is, if sums over taps run on from one row to the next; otherwise 0.

    Rows of the padded input follow each other in memory, and so do the windows that taps read of them, if what stands
    between the ends of two rows is computed too, and dropped. That pays for many terms and short rows, which leave much
    of a vector instruction idle.
    """
    outer, inner = ([-1, -1, *_order_of_sums(problem)])[-2:]
    spec, shape = problem.spec, problem.y_shape
    if min(outer, inner) < 3 or min(shape[outer], shape[inner]) == 1 or spec.strides[outer - 3] > 1:
        return 0
    if spec.strides[inner - 3] > 1 or is_complex(spec.out_dtype):
        return 0
    length = shape[inner]
    row = length + dilated(problem.kernel_shape[inner - 3], spec.rhs_dilation[inner - 3]) - 1
    lanes = _sums.lanes(problem)
    alone = length // lanes + (length % lanes + 1) / 2
    return row if _terms(problem) * (alone - row / lanes) > DROPPING * alone else 0


def _division(problem: Problem) -> _rows.Division | None:
    """Return how to sum over taps in rounds; None if there are few, or if what is copied would be mapped afresh."""
    padded = _windows.padded_size(problem)
    size = padded + max(padded, math.prod(problem.x_shape))
    if fresh(size * accumulation_dtype(problem.spec.out_dtype).itemsize):
        return None
    # Sums that run on from row to row need whole rows.
    inner = _order_of_sums(problem)[-1] if _joined(problem) else 0
    return _rows.divide(problem, [axis for axis in range(problem.spec.ndim) if 3 + axis != inner])


def _pads_alone(problem: Problem) -> bool:
    """Whether to pad each tap on its own, rather than the input."""
    spec, inner = problem.spec, _sums.innermost(_order_of_sums(problem), problem.y_shape)
    if _terms(problem) > FEW or not 1 <= spec.ndim <= 2 or max(spec.lhs_dilation) > 1 or _joined(problem):
        return False
    padded = [3 + axis for axis, pads in enumerate(spec.padding) if any(pads)]
    return bool(padded) and inner not in padded and problem.y_shape[inner] >= LONG


def _wider(problem: Problem) -> int:
    """Return by how many elements to lengthen the rows of the padded input, so that those that taps read lie apart."""
    outer, inner = ([-1, -1, *_order_of_sums(problem)])[-2:]
    if min(outer, inner) < 3 or _joined(problem):
        return 0
    spec, axis = problem.spec, inner - 3
    length = dilated(problem.input_shape[axis], spec.lhs_dilation[axis]) + sum(spec.padding[axis])
    apart = accumulation_dtype(spec.out_dtype).itemsize * length * spec.rhs_dilation[outer - 3]
    return WIDER if problem.kernel_shape[outer - 3] * math.gcd(apart, PAGE) > SHARING * PAGE else 0


def _sum_over_taps(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    division = _division(problem) if once.platform == "cpu" else None
    axis = _in_rows.long_axis(problem) if division is None else None
    if axis is not None and once.divides(problem.outputs, _terms(problem)):
        return _in_rows.sum_over_taps(problem, axis, x, w, once)
    order, shape = _order_of_sums(problem), problem.y_shape
    of_channel = _windows.Layout(tuple(axis for axis in order if axis != 2))
    layout = _windows.Layout((2, *of_channel.order))
    # Axes of length 1 are left out: with them XLA on CPU emits loops that are 3 to 5 times slower.
    axes = [axis for axis in order if shape[axis] > 1]
    sums = [shape[axis] for axis in axes]
    of_windows = [number for number, axis in enumerate(axes) if axis != 2]
    of_weights = [number for number, axis in enumerate(axes) if axis in (0, 2)]
    row, alone = _joined(problem), once.platform == "cpu" and _pads_alone(problem)
    dropped = row - sums[-1] if row else 0
    if row:
        sums[-2:] = [sums[-2] * row - dropped]
        of_windows.pop()

    def window(channel: jax.Array, tap: tuple[int, ...]) -> jax.Array:
        if row:
            return _run_of_tap(problem, channel, order, tap, row)
        return (_windows.of_tap_alone if alone else _windows.of_tap)(problem, channel, of_channel, tap)

    def part(x: jax.Array, w: jax.Array, *before: jax.Array, first: int, stop: int) -> jax.Array:
        shape = [stop - first, *sums[1:]] if sums else []
        taps = _rows.taps(problem, division, w.shape[0])
        weights = lax.split(w, (1,) * w.shape[0]) if w.shape[0] > 1 else [w]
        terms = []
        for c in range(problem.in_channels):
            channel = x if problem.in_channels == 1 else lax.index_in_dim(x, c, keepdims=False)
            for number, tap in enumerate(taps):
                read = lax.reshape(window(channel, tap), [sums[number] for number in of_windows])
                read = lax.slice_in_dim(read, first, stop) if shape != sums else read
                read = read if read.ndim == len(shape) else lax.broadcast_in_dim(read, shape, of_windows)
                weight = lax.squeeze(weights[number * problem.in_channels + c], (0,))
                terms.append(lax.mul(read, lax.broadcast_in_dim(weight, shape, of_weights)))
        total = _in_rows.added(terms)
        return functools.reduce(lax.add, (lax.slice_in_dim(y, first, stop) if sums else y for y in before), total)

    along = list(sums)
    if len(sums) == 1 and not of_weights and once.divides(sums[0], _terms(problem)):
        sums = list(_in_rows.shape_of(sums[0]))
        of_windows = list(range(len(sums)))
    whole = sums[0] if sums else 1
    cuts = once.cuts(whole, _terms(problem)) if len(sums) == 1 and not of_weights else (0, whole)

    def compute(*operands: jax.Array) -> jax.Array:
        if len(cuts) == 2:
            return part(*operands, first=0, stop=whole)
        return lax.concatenate(
            [once.apart(functools.partial(part, first=a, stop=b), *operands) for a, b in itertools.pairwise(cuts)], 0
        )

    # The taps first, so that the weights of neighbouring outputs are neighbours in memory.
    rows = 3 + division.axis if division else 3
    weights = (*sorted(range(3, w.ndim), key=lambda axis: axis != rows), 2)
    weights = (*weights, *((0, 1) if order.index(0) < order.index(2) else (1, 0)))
    x, w = lax.transpose(x, layout.order), lax.transpose(w, weights)
    # Without axes of length 1, which XLA on CPU would copy on the way into a call.
    w = lax.reshape(w, (problem.taps * problem.in_channels, *(sums[number] for number in of_weights)))
    if problem.in_channels == 1:
        x, layout = lax.squeeze(x, (0,)), of_channel
    # Outside of the call, padding is fused with what made the input, and shared with the kernel gradient.
    x = x if alone else _windows.pad(problem, x, layout)
    if wider := _wider(problem):
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 1) + [(0, wider, 0)])
    # Parts are joined apart, even those of short sums: in a loop with anything else that is 50 times slower.
    if division:
        some = functools.partial(once.apart, compute)
        y = _rows.total(problem, x, w, division, layout.spatial[division.axis], sums, some)
    else:
        y = once(_terms(problem), compute, x, w) if len(cuts) == 2 else once.apart(compute, x, w)
    if row:
        y = lax.pad(lax.reshape(y, along), jnp.zeros((), y.dtype), [(0, 0, 0)] * (len(along) - 1) + [(0, dropped, 0)])
        y = lax.slice_in_dim(y.reshape(*y.shape[:-1], -1, row), 0, row - dropped, axis=-1)
    return _windows.Layout(order).undo(lax.reshape(y, [shape[axis] for axis in order]), len(order))


def _run_of_tap(problem: Problem, x: jax.Array, order: Sequence[int], tap: Sequence[int], row: int) -> jax.Array:
    """Return what one tap reads of the padded input, for all outputs and what stands between rows of them."""
    *leading, outer, inner = (axis for axis in order if axis != 2)
    x = x.reshape(*x.shape[:-2], -1)
    begin, end, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    for number, axis in enumerate(leading):
        if axis >= 3:
            begin[number] = tap[axis - 3] * problem.spec.rhs_dilation[axis - 3]
            steps[number] = problem.spec.strides[axis - 3]
            end[number] = begin[number] + dilated(problem.output_shape[axis - 3], steps[number])
    offsets = [tap[axis - 3] * problem.spec.rhs_dilation[axis - 3] for axis in (outer, inner)]
    begin[-1] = offsets[0] * row + offsets[1]
    end[-1] = begin[-1] + (problem.y_shape[outer] - 1) * row + problem.y_shape[inner]
    return lax.slice(x, begin, end, steps)


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Convolve canonical operands, calling what must not be evaluated repeatedly by `once`."""
    spec = problem.spec
    accumulator = accumulation_dtype(spec.out_dtype)
    x, w = x.astype(accumulator), w.astype(accumulator)
    compute = _window_sums.run if _window_sums.applies(problem) else _sum_over_taps
    return compute(problem, x, w, once).astype(spec.out_dtype)
