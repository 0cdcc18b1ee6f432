"""Problems in which the kernel reaches along one axis only, as one-dimensional problems.

One-dimensional signals, and images that are filtered along an axis: on every other axis the kernel has length 1, so
that there is nothing to sum there, and the axis is a batch axis. Axes that are ``summed`` are the other extreme: on
those there is a single output, which reads every sample with the tap of the same number, so that they are channels.
"""

import dataclasses
import math
from collections.abc import Collection

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._spec import Problem

# So many columns make a matrix product without turning the long axis to the end.
COLUMNS = 64


def long_axis(problem: Problem, summed: Collection[int] = ()) -> int | None:
    """Return the only other spatial axis on which the kernel has several taps; None if there is not exactly one."""
    axes = [axis for axis, taps in enumerate(problem.kernel_shape) if taps > 1 and axis not in summed]
    return axes[0] if len(axes) == 1 else None


def summed_axes(problem: Problem) -> tuple[int, ...]:
    """Return the axes with a single output that sums every sample times the tap of its number; one axis is left."""
    spec, axes = problem.spec, list[int]()
    for axis, taps in enumerate(problem.kernel_shape):
        reads_all = spec.padding[axis] == (0, 0) and problem.input_shape[axis] == taps > 1
        if reads_all and spec.lhs_dilation[axis] == spec.rhs_dilation[axis] == 1:
            axes.append(axis)
    alone = len(axes) == sum(taps > 1 for taps in problem.kernel_shape)
    return tuple(axes[:-1] if alone else axes)


def one_dimensional(problem: Problem, summed: Collection[int] = ()) -> Problem:
    """Return the problem on the long axis alone, the other axes having joined the batch or the channels."""
    axis = long_axis(problem, summed)
    if axis is None:
        raise ValueError(f"the kernel reaches along several axes, or none: its shape is {problem.kernel_shape}")
    spec = problem.spec
    batch = problem.batch
    for other, length in enumerate(problem.output_shape):
        batch *= length if other != axis else 1
    return dataclasses.replace(
        problem,
        batch=batch,
        in_channels=problem.in_channels * math.prod(problem.kernel_shape[other] for other in summed),
        input_shape=(problem.input_shape[axis],),
        kernel_shape=(problem.kernel_shape[axis],),
        spec=dataclasses.replace(
            spec,
            strides=(spec.strides[axis],),
            padding=(spec.padding[axis],),
            lhs_dilation=(spec.lhs_dilation[axis],),
            rhs_dilation=(spec.rhs_dilation[axis],),
            held=None,
        ),
    )


def columns(problem: Problem) -> int:
    """Return how many outputs lie side by side across the long axis, if there are enough to leave it where it is; or 0.

    Of a single channel. Those are the columns of an image that is filtered from row to row.
    """
    axis = long_axis(problem)
    if axis is None or problem.groups * problem.in_channels * problem.out_channels > 1:
        return 0
    count = math.prod(problem.output_shape[axis + 1 :])
    return count if count >= COLUMNS else 0


def _order(problem: Problem, summed: Collection[int]) -> tuple[int, ...]:
    """Return the order of the canonical axes in which the long one comes last."""
    axis = 3 + (long_axis(problem, summed) or 0)
    channels = sorted(3 + other for other in summed)
    batch = [a for a in range(3, 3 + problem.spec.ndim) if a != axis and a not in channels]
    return (0, 1, *batch, 2, *channels, axis)


def moves(problem: Problem, summed: Collection[int] = ()) -> dict[str, float]:
    """Return what is moved to bring the long axis of the operands to the end, and that of the result back, as terms."""
    last = _order(problem, summed)
    x_order, w_order, y_order = problem.spec.orders
    return _windows.total_moves(
        _windows.moves(problem.x_shape, x_order, last),
        _windows.moves(problem.w_shape, w_order, last),
        _windows.moves(problem.y_shape, last, y_order),
    )


def flatten(problem: Problem, x: jax.Array, w: jax.Array, summed: Collection[int] = ()) -> tuple[jax.Array, jax.Array]:
    """Return the operands of the one-dimensional problem."""
    order, channels = _order(problem, summed), one_dimensional(problem, summed).in_channels
    x, w = across(problem, x, summed).transpose(order), w.transpose(order)
    return (
        x.reshape(problem.groups, -1, channels, x.shape[-1]),
        w.reshape(problem.groups, problem.out_channels, channels, w.shape[-1]),
    )


def across(problem: Problem, x: jax.Array, summed: Collection[int] = ()) -> jax.Array:
    """Return what the outputs read of the input on all axes but the long one, where each reads one sample, or all."""
    spec = problem.spec
    axis = 3 + (long_axis(problem, summed) or 0)
    config, steps = [(0, 0, 0)] * 3, [1] * 3
    for other in range(spec.ndim):
        along = other + 3 == axis
        config.append((0, 0, 0) if along else (*spec.padding[other], spec.lhs_dilation[other] - 1))
        steps.append(1 if along or other in summed else spec.strides[other])
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    return lax.slice(x, (0,) * x.ndim, x.shape, steps)


def restore(problem: Problem, y: jax.Array, summed: Collection[int] = ()) -> jax.Array:
    """Return the result of the one-dimensional problem, y[g, n * others, o, m], in the shape of the problem."""
    axis = long_axis(problem, summed) or 0
    outputs = problem.output_shape
    others = [length for other, length in enumerate(outputs) if other != axis]
    y = y.reshape(problem.groups, problem.batch, *others, problem.out_channels, outputs[axis])
    channel = 2 + len(others)
    spatial = list(range(2, channel))
    spatial.insert(axis, channel + 1)
    return y.transpose(0, 1, channel, *spatial)
