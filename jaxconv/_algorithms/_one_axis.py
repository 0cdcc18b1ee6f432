"""Problems in which the kernel reaches along one axis only, as one-dimensional problems.

One-dimensional signals, and images that are filtered along an axis: on every other axis the kernel has length 1, so
that there is nothing to sum there, and the axis is a batch axis.
"""

import dataclasses
import math

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._spec import Problem

# So many columns make a matrix product without turning the long axis to the end.
COLUMNS = 64


def long_axis(problem: Problem) -> int | None:
    """Return the only spatial axis on which the kernel has more than one tap; None if there is not exactly one."""
    axes = [axis for axis, taps in enumerate(problem.kernel_shape) if taps > 1]
    return axes[0] if len(axes) == 1 else None


def one_dimensional(problem: Problem) -> Problem:
    """Return the problem on the long axis alone, the other axes having joined the batch."""
    axis = long_axis(problem)
    if axis is None:
        raise ValueError(f"the kernel reaches along several axes, or none: its shape is {problem.kernel_shape}")
    spec = problem.spec
    batch = problem.batch
    for other, length in enumerate(problem.output_shape):
        batch *= length if other != axis else 1
    return dataclasses.replace(
        problem,
        batch=batch,
        input_shape=(problem.input_shape[axis],),
        kernel_shape=(problem.kernel_shape[axis],),
        spec=dataclasses.replace(
            spec,
            strides=(spec.strides[axis],),
            padding=(spec.padding[axis],),
            lhs_dilation=(spec.lhs_dilation[axis],),
            rhs_dilation=(spec.rhs_dilation[axis],),
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


def moves(problem: Problem) -> dict[str, float]:
    """Return what is moved to bring the long axis of the operands to the end, and that of the result back, as terms."""
    axis = 3 + (long_axis(problem) or 0)
    last = (0, 1, *(a for a in range(3, 3 + problem.spec.ndim) if a != axis), 2, axis)
    x_order, w_order, y_order = _windows.stored_orders(problem)
    return _windows.total_moves(
        _windows.moves(problem.x_shape, x_order, last),
        _windows.moves(problem.w_shape, w_order, (0, 1, 2, axis)),
        _windows.moves(problem.y_shape, last, y_order),
    )


def flatten(problem: Problem, x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the operands of the one-dimensional problem."""
    axis = 3 + (long_axis(problem) or 0)
    x = across(problem, x)
    others = [a for a in range(3, x.ndim) if a != axis]
    x = x.transpose(0, 1, *others, 2, axis)
    return x.reshape(problem.groups, -1, problem.in_channels, x.shape[-1]), w.reshape(*w.shape[:3], -1)


def across(problem: Problem, x: jax.Array) -> jax.Array:
    """Return what the outputs read of the input on all axes but the long one, where each reads one sample."""
    spec = problem.spec
    axis = 3 + (long_axis(problem) or 0)
    config, steps = [(0, 0, 0)] * 3, [1] * 3
    for other in range(spec.ndim):
        along = other + 3 == axis
        config.append((0, 0, 0) if along else (*spec.padding[other], spec.lhs_dilation[other] - 1))
        steps.append(1 if along else spec.strides[other])
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    return lax.slice(x, (0,) * x.ndim, x.shape, steps)


def restore(problem: Problem, y: jax.Array) -> jax.Array:
    """Return the result of the one-dimensional problem, y[g, n * others, o, m], in the shape of the problem."""
    axis = long_axis(problem) or 0
    outputs = problem.output_shape
    others = [length for other, length in enumerate(outputs) if other != axis]
    y = y.reshape(problem.groups, problem.batch, *others, problem.out_channels, outputs[axis])
    channel = 2 + len(others)
    spatial = list(range(2, channel))
    spatial.insert(axis, channel + 1)
    return y.transpose(0, 1, channel, *spatial)
