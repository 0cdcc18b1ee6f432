"""Sums over taps along a single long axis, in stretches: those that reach into padding apart from the others.

Padding a long signal copies it, and XLA on CPU vectorises a loop along a single axis only if its length can be divided
evenly among the cores. So an even number of outputs that read nothing but the input itself are computed where it
stands, the few others from padded ends of it, and the stretches are joined.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import jax
from jax import lax

from jaxconv._algorithms import _windows
from jaxconv._algorithms._once import EVEN, Call
from jaxconv._spec import Problem, dilated

# Into how many chains of additions a sum is divided, and how many terms make one.
CHAINS = 4
CHAIN = 8


def added(terms: Sequence[jax.Array]) -> jax.Array:
    """Add up terms: each addition waits for the one before, and those of several chains are under way together."""
    chains = min(CHAINS, max(len(terms) // CHAIN, 1))
    stops = [len(terms) * chain // chains for chain in range(chains + 1)]
    return functools.reduce(lax.add, [functools.reduce(lax.add, terms[a:b]) for a, b in itertools.pairwise(stops)])


def inside(problem: Problem) -> tuple[int, int, int] | None:
    """Return the only axis with several outputs, and where those that read no padding begin and stop; None if few do.

    Of a single channel that is padded on no other axis.
    """
    axes = [axis for axis, size in enumerate(problem.y_shape) if size > 1]
    if len(axes) != 1 or axes[0] < 3 or problem.in_channels > 1:
        return None
    spec, axis = problem.spec, axes[0] - 3
    if max(spec.lhs_dilation) > 1 or any(any(pads) for other, pads in enumerate(spec.padding) if other != axis):
        return None
    stride, (low, _) = spec.strides[axis], spec.padding[axis]
    reach = dilated(problem.kernel_shape[axis], spec.rhs_dilation[axis])
    first, stop = -(-low // stride), (low + problem.input_shape[axis] - reach) // stride + 1
    return (axis, first, stop) if stop - first >= EVEN else None


def sum_over_taps(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Sum over taps along a single long axis: an even number of outputs inside the input, and what is left, apart.

    So there is no need for a padded copy of the input.
    """
    axis, first, stop = inside(problem) or (0, 0, 0)
    spec = problem.spec
    stride, (low, _) = spec.strides[axis], spec.padding[axis]
    samples, reach = problem.input_shape[axis], dilated(problem.kernel_shape[axis], spec.rhs_dilation[axis])

    def stretch(first: int, stop: int) -> jax.Array:
        begin, end = first * stride - low, (stop - 1) * stride - low + reach
        padding, lengths = list(spec.padding), list(problem.input_shape)
        padding[axis] = max(-begin, 0), max(end - samples, 0)
        lengths[axis] = min(end, samples) - max(begin, 0)
        some = dataclasses.replace(
            problem, input_shape=tuple(lengths), spec=dataclasses.replace(spec, padding=tuple(padding))
        )

        def read(x: jax.Array) -> jax.Array:
            return lax.slice_in_dim(x, max(begin, 0), min(end, samples), axis=3 + axis)

        # What is not padded is sliced inside of the call, where it need not be copied.
        if any(padding[axis]):
            end_of_x = _windows.pad(some, read(x), _windows.Layout(tuple(range(x.ndim))))
            return once.apart(functools.partial(_sum_of_one_axis, some), end_of_x, w)
        return once.apart(lambda x, w: _sum_of_one_axis(some, read(x), w), x, w)

    cuts = sorted({0, first, stop - (stop - first) % EVEN, problem.outputs})
    # Joined apart: in a loop with anything else that is 50 times slower.
    y = once.apart(lambda *parts: lax.concatenate(parts, 0), *(stretch(a, b) for a, b in itertools.pairwise(cuts)))
    return lax.reshape(y, problem.y_shape)


def _sum_of_one_axis(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Return the sums over taps of a padded input with a single axis of outputs and a single channel."""
    layout = _windows.Layout(tuple(range(3, x.ndim)))
    x, taps = lax.reshape(x, x.shape[3:]), list(_windows.positions(problem.kernel_shape))
    if problem.spec.convention == "convolution":
        taps.reverse()
    shape = (problem.outputs,)
    return added(
        [
            lax.mul(
                lax.reshape(_windows.of_tap(problem, x, layout, tap), shape),
                lax.broadcast_in_dim(lax.squeeze(weight, (0,)), shape, ()),
            )
            for tap, weight in zip(taps, lax.split(lax.reshape(w, (w.size,)), (1,) * w.size), strict=True)
        ]
    )
