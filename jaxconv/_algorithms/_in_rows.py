"""Sums over taps along a single long axis.

XLA on CPU vectorises a loop along a single axis only if its length can be divided evenly among the cores. So outputs
are computed, and what has to be padded is copied, as the rows of a matrix.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._algorithms._once import EVEN, Call
from jaxconv._spec import Problem, dilated

# Into how many chains of additions a sum is divided, and how many terms make one.
CHAINS = 4
CHAIN = 8
# At most so many rows, of at least so many elements.
ROWS = 64
ROW = 128
# Up to so many taps are padded each where it reads, which costs more arithmetic than a padded copy, and no traffic.
PADDED_ALONE = 6


def added(terms: Sequence[jax.Array]) -> jax.Array:
    """Add up terms: each addition waits for the one before, and those of several chains are under way together."""
    chains = min(CHAINS, max(len(terms) // CHAIN, 1))
    stops = [len(terms) * chain // chains for chain in range(chains + 1)]
    return functools.reduce(lax.add, [functools.reduce(lax.add, terms[a:b]) for a, b in itertools.pairwise(stops)])


def long_axis(problem: Problem) -> int | None:
    """Return the only axis with several outputs, if any: of a single channel, and with no padding on other axes."""
    axes = [axis for axis, size in enumerate(problem.y_shape) if size > 1]
    if len(axes) != 1 or axes[0] < 3 or problem.in_channels > 1 or max(problem.spec.lhs_dilation) > 1:
        return None
    long = axes[0] - 3
    return None if any(any(pads) for axis, pads in enumerate(problem.spec.padding) if axis != long) else long


def pads_alone(problem: Problem) -> bool:
    """Whether each tap is padded on its own, of a problem with a long axis."""
    return problem.taps <= PADDED_ALONE and _windows.padded_size(problem) > 0


def shape_of(length: int) -> tuple[int, ...]:
    """Return the shape in which to compute so many elements: rows, or a single axis if their number has no divisor."""
    divisors = (rows for rows in range(min(ROWS, length // ROW), 1, -1) if length % rows == 0)
    rows = next(divisors, 1)
    return (rows, length // rows) if rows > 1 else (length,)


def joins(problem: Problem) -> bool:
    """Whether outputs are computed in two parts, which are copied to be joined: their number has no divisor."""
    return len(shape_of(problem.outputs)) == 1


def sum_over_taps(problem: Problem, axis: int, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Sum over taps along a single long axis."""
    x, w = lax.reshape(x, problem.input_shape), lax.reshape(w, (w.size,))
    low, high = problem.spec.padding[axis]
    if (low or high) and not pads_alone(problem):
        shape = list(problem.input_shape)
        shape[axis] += low + high
        shape[axis] += -shape[axis] % EVEN  # what no output reads, so that rows are even
        x = lax.reshape(once.apart(functools.partial(_padded, axis=axis, low=low, length=shape[axis]), x), shape)
        low = 0
    outputs = problem.outputs
    cuts = once.cuts(outputs, problem.taps) if joins(problem) else (0, outputs)
    parts = [
        lax.reshape(once.apart(functools.partial(_sums, problem, axis, low, first, stop), x, w), (stop - first,))
        for first, stop in itertools.pairwise(cuts)
    ]
    # Joined apart: in a loop with anything else that is 50 times slower.
    y = parts[0] if len(parts) == 1 else once.apart(lambda *parts: lax.concatenate(parts, 0), *parts)
    return lax.reshape(y, problem.y_shape)


def _padded(x: jax.Array, axis: int, low: int, length: int) -> jax.Array:
    """Return a copy with zeros in front of an axis, and as many behind it as make it so long; in rows, if alone."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (low, length - low - x.shape[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    return lax.reshape(x, shape_of(length)) if x.size == length else x


def _sums(problem: Problem, axis: int, low: int, first: int, stop: int, x: jax.Array, w: jax.Array) -> jax.Array:
    """Return some of the outputs, in rows: those of an input that has zeros in front of it, so many, and behind it."""
    spec, layout = problem.spec, _windows.Layout(tuple(range(3, 3 + x.ndim)))
    taps = list(_windows.positions(problem.kernel_shape))
    if spec.convention == "convolution":
        taps.reverse()
    low -= first * spec.strides[axis]
    reach = dilated(stop - first, spec.strides[axis]) + dilated(problem.kernel_shape[axis], spec.rhs_dilation[axis]) - 1
    padding = list(spec.padding)
    padding[axis] = (low, reach - low - x.shape[axis])
    some = dataclasses.replace(problem, input_shape=x.shape, spec=dataclasses.replace(spec, padding=tuple(padding)))
    shape = shape_of(stop - first)
    weights = lax.split(w, (1,) * w.size) if w.size > 1 else [w]
    terms = []
    for tap, weight in zip(taps, weights, strict=True):
        read = lax.reshape(_windows.of_tap_alone(some, x, layout, tap), shape)
        terms.append(lax.mul(read, lax.broadcast_in_dim(lax.squeeze(weight, (0,)), shape, ())))
    return added(terms)
