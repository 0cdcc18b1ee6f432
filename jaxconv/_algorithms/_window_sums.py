"""Sums over windows, one written out for each output: the form of `shift` where outputs are fewer than taps.

As in the kernel gradient of a long signal. Several of them are computed in each pass over the operands (see
`jaxconv._algorithms._reductions`). With channels to contract they are products of matrices instead (see
`jaxconv._algorithms.matmul`).
"""

import functools
import itertools
import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _reductions, _sums, _windows, exchange
from jaxconv._algorithms._once import Call
from jaxconv._spec import Problem

# Up to WINDOWS sums over outputs are written out, and computed for other outputs in up to MAX_ROUNDS rounds. Outputs
# that cannot be divided so are all written out, if they are at most MAX_WINDOWS.
WINDOWS = 24
MAX_ROUNDS = 16
MAX_WINDOWS = 48


def applies(problem: Problem) -> bool:
    """Whether to write out the outputs rather than the taps."""
    pairs = problem.batch * problem.out_channels
    # Without groups, pairs of channels are matrix products.
    single = problem.groups > 1 or pairs == 1
    return single and pairs * problem.outputs < problem.taps * problem.in_channels and _rounds(problem) is not None


def work(problem: Problem) -> _sums.Work:
    """Return what the sums take."""
    padded, sums, (x_order, w_order, _) = _windows.padded_size(problem), problem.multiply_adds, problem.spec.orders
    wanted, (_, rounds) = _order(problem), _rounds(problem) or (0, 1)
    moves = zip((problem.x_shape, problem.w_shape), (x_order, w_order), strict=True)
    moved = _windows.total_moves(*(_windows.moves(shape, order, wanted) for shape, order in moves))
    return _sums.Work(
        sums=sums,
        innermost=problem.w_shape[_sums.innermost(wanted, problem.w_shape)],
        padded=padded,
        copied=0,
        # Each round copies what it reads, into the same place.
        rounds=rounds if rounds > 1 else 0,
        copied_each=max(padded, math.prod(problem.x_shape)) if rounds > 1 else 0,
        partial=sums // (rounds * _reductions.BLOCKS[-1]),
        terms={"windows": problem.batch * problem.out_channels * problem.outputs, "window sums": sums, **moved},
    )


def run(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    """Convolve canonical operands in the dtype of accumulation."""
    if _reads_all(problem):
        # The same sums, over windows of the kernel: there is nothing to pad, and fewer products.
        return exchange.exchanged(problem, x, w, functools.partial(_sum, once=once))
    return _sum(problem, x, w, once)


def _order(problem: Problem) -> tuple[int, ...]:
    """Return the order of the operands' axes in which to sum; few groups are too short to be innermost."""
    order, _, _ = problem.spec.orders
    if _sums.innermost(order, problem.w_shape) == 0 and problem.groups < _sums.SHORT and problem.outputs > WINDOWS:
        return (0, *(axis for axis in order if axis != 0))
    return order


def _sum(problem: Problem, x: jax.Array, w: jax.Array, once: Call) -> jax.Array:
    # Items of the batch and single kernels are arrays of their own, without the axis that told them apart: for where an
    # axis of length 1 stands in memory XLA may copy the whole array.
    order = _order(problem)
    where = order.index(1)
    layout = _windows.Layout(tuple(axis for axis in order if axis != 1))
    axes = [axis for axis in layout.order if problem.w_shape[axis] > 1]
    shape = [problem.w_shape[axis] for axis in axes]
    groups = [number for number, axis in enumerate(axes) if axis == 0]
    looped, rounds = _rounds(problem) or (0, 1)
    outputs = [size // rounds if axis == looped else size for axis, size in enumerate(problem.output_shape)]

    def sums(*operands: jax.Array) -> jax.Array:
        kernels = [lax.reshape(kernel, shape) for kernel in operands[problem.batch :]]
        products = [
            lax.mul(lax.reshape(_windows.of_output(problem, item, layout, m), shape), kernel)
            for item, kernel in itertools.product(operands[: problem.batch], kernels)
            for m in _windows.positions(outputs)
        ]
        return _reductions.totals(products, groups)

    def compute(*operands: jax.Array) -> jax.Array:
        if rounds == 1:
            return sums(*operands)
        items, kernels = operands[: problem.batch], operands[problem.batch :]
        step, axis = outputs[looped] * problem.spec.strides[looped], layout.spatial[looped]
        span = items[0].shape[axis] - (rounds - 1) * step

        def some(i: jax.Array) -> jax.Array:
            # In a call of its own, for what LLVM does not vectorise are loops with such a slice in them.
            parts = [lax.dynamic_slice_in_dim(item, i * step, span, axis) for item in items]
            return once(problem.taps, sums, *parts, *kernels)

        return lax.map(some, jnp.arange(rounds))

    x, w = lax.transpose(x, order), lax.transpose(_windows.as_correlation(problem, w), order)
    items, kernels = ([lax.index_in_dim(a, i, where, keepdims=False) for i in range(a.shape[where])] for a in (x, w))
    operands = [*(_windows.pad(problem, item, layout) for item in items), *kernels]
    total = once(problem.outputs, compute, *operands)
    total = total.reshape(rounds, problem.batch, problem.out_channels, *outputs, problem.groups)
    total = jnp.moveaxis(total, (0, -1), (3 + looped, 0))
    return total.reshape(problem.y_shape)


def _rounds(problem: Problem) -> tuple[int, int] | None:
    """Return over which axis of the outputs to loop, and in how many rounds; None if there are too many outputs."""
    windows = problem.batch * problem.out_channels * problem.outputs
    divisions = [
        (rounds, axis)
        for axis, size in enumerate(problem.output_shape)
        for rounds in range(1, min(size, MAX_ROUNDS) + 1)
        if size % rounds == 0 and windows <= rounds * WINDOWS
    ]
    if not divisions:
        return (0, 1) if windows <= MAX_WINDOWS else None
    rounds, axis = min(divisions)
    return axis, rounds


def _reads_all(problem: Problem) -> bool:
    """Whether every output reads the whole input, as in the kernel gradient of a full convolution."""
    spec = problem.spec
    return (
        all(steps == (1,) * spec.ndim for steps in (spec.strides, spec.lhs_dilation, spec.rhs_dilation))
        and spec.padding == tuple((length - 1, length - 1) for length in problem.output_shape)
        and spec.convention == "correlation"
        and problem.outputs > 1
    )
