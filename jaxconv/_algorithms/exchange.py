"""Operands exchanged: sums over positions, with windows of the kernel instead of the input.

Of few outputs, as in the kernel gradient, each is a sum over all positions, and its windows are gathered from the
input. Read as sums over the input's samples they are those of a correlation of the kernel, as its input, with the
input, as its kernel, in the reversed order of outputs::

    y[n, o, m] = sum_k x[n, m s + k] w[o, k] = sum_i x[n, i] w[o, i l + low - m s]      (stride s, input dilated by l)

so that windows may be gathered from whichever has fewer channels, and an input that is dilated, as in the gradients of
transposed layers, is not filled up with zeros. Whatever algorithm is best for the exchanged convolution computes it.

Where such windows reach beyond the kernel they are filled up with zeros, and those meet samples that the output
does not read. That does no harm unless such a sample is infinite or not a number, and then no output that meets it is
finite. So the result is looked at, which has few elements: if they are not all finite, XLA's convolution computes
them once more, by the definition.

Cost: that of the convolution inside, and one pass over the result.

Error: that of the algorithm inside; the sums are the same.

Source: exchanging the integration variable of the definition.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _finite, _windows
from jaxconv._cost import Cost
from jaxconv._dtypes import accumulation_dtype, is_inexact
from jaxconv._spec import Problem, dilated, exchanged_order


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel is dilated, or there is nothing to gain, else None."""
    if max(problem.spec.rhs_dilation, default=1) > 1:
        return f"the kernel is dilated, by {problem.spec.rhs_dilation}"
    if problem.outputs == 1:
        return "a single output has but one window"
    if problem.outputs >= problem.taps:
        return f"needs fewer outputs ({problem.outputs}) than taps ({problem.taps})"
    if problem.out_channels >= problem.batch * math.prod(problem.spec.lhs_dilation):
        return (
            f"needs a dilated input, or fewer output channels ({problem.out_channels}) than items in the batch "
            f"({problem.batch})"
        )
    return None


def inner(problem: Problem) -> Problem:
    """Return the convolution with exchanged operands, whose outputs have the reversed order."""
    spec = problem.spec
    x_order, w_order, y_order = spec.orders
    pads = []
    for samples, taps, outputs, stride, dilation, (low, _) in zip(
        problem.input_shape,
        problem.kernel_shape,
        problem.output_shape,
        spec.strides,
        spec.lhs_dilation,
        spec.padding,
        strict=True,
    ):
        reach = (outputs - 1) * stride
        pads.append((reach - low, dilated(samples, dilation) - taps + low))
    return dataclasses.replace(
        problem,
        batch=problem.out_channels,
        out_channels=problem.batch,
        input_shape=problem.kernel_shape,
        kernel_shape=problem.input_shape,
        spec=dataclasses.replace(
            spec,
            padding=tuple(pads),
            lhs_dilation=spec.rhs_dilation,
            rhs_dilation=spec.lhs_dilation,
            convention="correlation",
            held=(w_order, x_order, exchanged_order(y_order)),
        ),
    )


def exchanged(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Correlate canonical operands in each other's place, whatever they hold; ``compute`` is what does it."""
    return lax.rev(jnp.swapaxes(compute(inner(problem), w, x), 1, 2), tuple(range(3, x.ndim)))


def _meets_more(problem: Problem) -> bool:
    """Whether some output would meet a sample that it does not read, and such a sample may be no finite number."""
    return is_inexact(problem.dtype) and any(max(pads) > 0 for pads in inner(problem).spec.padding)


def cost(problem: Problem) -> Cost:
    """Return the cost of looking at the result, without the convolution inside."""
    checks = _meets_more(problem)
    seen = accumulation_dtype(problem.spec.out_dtype).itemsize * math.prod(problem.y_shape) * checks
    return Cost(0, 0, seen, seen, 0.0, {"call": 1, "checks": checks, "seen": seen})


def run(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolve canonical operands; ``compute`` is what convolves the exchanged ones."""
    y = exchanged(problem, x, _windows.as_correlation(problem, w), compute)
    return _finite.or_by_definition(problem, y, x, w, look_at="result") if _meets_more(problem) else y
