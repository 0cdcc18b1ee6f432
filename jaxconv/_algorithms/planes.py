"""Volumes as planes: three spatial axes and more, as convolutions with one axis fewer.

One axis of the kernel is written out: the slices of the input that its taps meet become input channels, and the outputs
along that axis become the batch::

    y[m, m'] = sum_k sum_k' w[k, k'] x[m s + k d, m' s' + k' d']      (one sum over the channels (k, c), one over k')

XLA on CPU convolves one or two spatial axes 10 to 50 times faster than three, and has no fast code at all for more, or
for a dilated kernel with three. Whatever algorithm is best for the convolution with one axis fewer computes it.

Cost: that of the convolution inside, and the input copied once for each tap of the axis with the fewest.

Error: that of the algorithm inside; the sums are the same.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows
from jaxconv._cost import Cost, fresh
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, dilated, held_without

# The input is copied at most so many times.
MAX_TAPS = 16


def _axis(problem: Problem) -> int:
    """Return the axis with the fewest taps, the first one of several."""
    return problem.kernel_shape.index(min(problem.kernel_shape))


def supports(problem: Problem) -> str | None:
    """Return the reason if there are fewer than three spatial axes, or too many taps on each, else None."""
    if problem.spec.ndim < 3:
        return f"needs three spatial axes or more, not {problem.spec.ndim}"
    taps = min(problem.kernel_shape)
    if taps > MAX_TAPS:
        return f"would copy the input {taps} times (at most {MAX_TAPS})"
    if problem.in_channels > 1 and problem.taps > math.prod(problem.input_shape):
        return f"the kernel {problem.kernel_shape} is larger than the input {problem.input_shape}"
    return None


def _without(values: tuple, axis: int) -> tuple:
    return (*values[:axis], *values[axis + 1 :])


def inner(problem: Problem) -> Problem:
    """Return the convolution with one axis fewer."""
    axis, spec = _axis(problem), problem.spec
    return dataclasses.replace(
        problem,
        batch=problem.batch * problem.output_shape[axis],
        in_channels=problem.in_channels * problem.kernel_shape[axis],
        input_shape=_without(problem.input_shape, axis),
        kernel_shape=_without(problem.kernel_shape, axis),
        spec=dataclasses.replace(
            spec,
            strides=_without(spec.strides, axis),
            padding=_without(spec.padding, axis),
            lhs_dilation=_without(spec.lhs_dilation, axis),
            rhs_dilation=_without(spec.rhs_dilation, axis),
            held=held_without(spec.orders, (axis,)),
        ),
    )


def gathers(problem: Problem) -> tuple[str, ...]:
    """Return the axes that it merges with others in front, so that their devices exchange data."""
    return ("in_channels",) if problem.kernel_shape[_axis(problem)] > 1 else ()


def cost(problem: Problem) -> Cost:
    """Return the cost of copying the input, without the convolution inside."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    copied = itemsize * math.prod(inner(problem).x_shape)
    terms = {"call": 1, "bytes": 2 * copied, "fresh": fresh(copied), **_moves(problem)}
    return Cost(0, 0, 2 * copied, copied, 0.0, terms)


def _moves(problem: Problem) -> dict[str, float]:
    """Return what is moved to what is convolved inside, and from there to the result in the caller's layout."""
    axis, taps = _axis(problem), 3 + problem.spec.ndim
    of_x, _, of_y = problem.spec.orders
    rest = [3 + other for other in range(problem.spec.ndim) if other != axis]
    inside, _, result = (
        [part for a in order for part in {0: [0], 1: [1, 3 + axis], 2: [taps, 2]}.get(a) or [rest[a - 3]]]
        for order in inner(problem).spec.orders
    )
    length = problem.output_shape[axis]
    sizes = (*problem.x_shape[: 3 + axis], length, *problem.x_shape[4 + axis :], problem.kernel_shape[axis])
    return _windows.total_moves(
        _windows.moves(sizes, [taps, *of_x], inside),
        _windows.moves(problem.y_shape, [a for a in result if a != taps], of_y),
    )


def run(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolve canonical operands; ``compute`` is what convolves with one axis fewer."""
    spec, axis, core = problem.spec, _axis(problem), inner(problem)
    where = 3 + axis
    length, stride, dilation = problem.output_shape[axis], spec.strides[axis], spec.rhs_dilation[axis]
    if spec.convention == "convolution":
        w = lax.rev(w, (where,))
    config = [(0, 0, 0)] * x.ndim
    config[where] = (*spec.padding[axis], spec.lhs_dilation[axis] - 1)
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    starts = [k * dilation for k in range(problem.kernel_shape[axis])]
    slices = [lax.slice_in_dim(x, start, start + dilated(length, stride), stride, where) for start in starts]
    # [k, g, n, c, *S] -> [g, (n, m), (k, c), *S'], and likewise the kernel
    x = jnp.moveaxis(jnp.stack(slices), (1, 2, 1 + where, 0, 3), (0, 1, 2, 3, 4))
    w = jnp.moveaxis(w, where, 2)
    y = compute(core, x.reshape(core.x_shape), w.reshape(core.w_shape))
    y = y.reshape(problem.groups, problem.batch, length, problem.out_channels, *y.shape[3:])
    return jnp.moveaxis(y, 2, where)
