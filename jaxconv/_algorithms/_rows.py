"""Sums over many taps in rounds of a loop, each over some rows of the kernel, so that few terms are written out.

``y = sum_r sum_(k in rows r) w[k] x[m + k]``: each round adds to the result what its rows contribute. XLA compiles the
rows of one round, and at most once more those that are left over; and what few rows read stays in the first cache. For
that each round copies the part of the padded input that it reads, and reads and writes the result.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax import lax

from jaxconv._algorithms import _windows
from jaxconv._spec import Problem, dilated

# Sums of more terms than TOO_MANY are computed in rounds, of about UNROLLED terms: each takes XLA 2 ms to compile.
TOO_MANY = 80
UNROLLED = 40


@dataclasses.dataclass(frozen=True)
class Division:
    """How to divide the rows of a kernel along an axis: so many in each round, and what is left over in one more."""

    axis: int
    rows: int
    each: int

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return -(-self.rows // self.each)


def divide(problem: Problem, axes: Collection[int]) -> Division | None:
    """Return how to sum in rounds along one of some axes of the kernel; None if there are few terms.

    As few rounds as write out at most `UNROLLED` terms, or else as few terms as possible.
    """
    terms = problem.taps * problem.in_channels
    shape = problem.kernel_shape
    options = [Division(axis, shape[axis], each) for axis in axes for each in range(1, shape[axis])]

    def written(option: Division) -> int:
        return (option.each + option.rows % option.each) * terms // option.rows

    if terms <= TOO_MANY or not options:
        return None
    return min(options, key=lambda option: (max(written(option), UNROLLED), option.rounds))


def taps(problem: Problem, division: Division | None, terms: int) -> list[tuple[int, ...]]:
    """Return the taps of the rows that have so many terms, in the order of weights that begins with the rows."""
    if division is None:
        found = list(_windows.positions(problem.kernel_shape))
    else:
        axis, rows = division.axis, terms * division.rows // (problem.taps * problem.in_channels)
        others = [size for other, size in enumerate(problem.kernel_shape) if other != axis]
        moved = _windows.positions((rows, *others))
        found = [(*tap[1 : axis + 1], tap[0], *tap[axis + 1 :]) for tap in moved]
    return found if problem.spec.convention == "correlation" else found[::-1]


def total(
    problem: Problem,
    x: jax.Array,
    w: jax.Array,
    division: Division,
    where: int,
    shape: Sequence[int],
    compute: Callable[..., jax.Array],
) -> jax.Array:
    """Sum over all taps: ``compute`` takes what some rows read, their weights, and the sum so far, if there is any.

    ``where`` is the axis along which the padded input is cut; the first axis of the weights begins with the rows.
    """
    all_rows, each, axis = division.rows, division.each, division.axis
    step, of_row = problem.spec.rhs_dilation[axis], w.shape[0] // all_rows
    reach = dilated(problem.output_shape[axis], problem.spec.strides[axis])

    def add(first: Any, rows: int, *before: jax.Array) -> jax.Array:
        start = first if problem.spec.convention == "correlation" else all_rows - rows - first
        read = lax.dynamic_slice_in_dim(x, start * step, dilated(rows, step) + reach - 1, where)
        return compute(read, lax.dynamic_slice_in_dim(w, first * of_row, rows * of_row), *before)

    rest = all_rows % each
    y = add(0, rest) if rest else _windows.zeros_like(x, tuple(shape))
    return lax.fori_loop(0, all_rows // each, lambda number, y: add(rest + number * each, each, y), y)
