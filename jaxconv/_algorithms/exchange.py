"""Operands exchanged: sums over positions, with windows of the kernel instead of the input.

Of few outputs, as in the kernel gradient, each is a sum over all positions, and its windows are gathered from the
input. Read as sums over the input's samples they are those of a correlation of the kernel, as its input, with the
input, as its kernel, in the reversed order of outputs::

    y[n, o, m] = sum_k x[n, m s + k] w[o, k] = sum_i x[n, i] w[o, i l + low - m s]      (stride s, input dilated by l)

so that windows may be gathered from whichever has fewer channels, and an input that is dilated, as in the gradients of
transposed layers, is not filled up with zeros. Whatever algorithm is best for the exchanged convolution computes it.

Where such windows reach beyond the kernel they are filled up with zeros, and those meet samples that the output
does not read. That does no harm unless such a sample is infinite or not a number. There are few that not every output
reads, at the edges: only they are looked at. If one is not finite, each output is summed on its own, from a copy of the
input in which zeros stand for what that output does not read.

Cost: that of the convolution inside, and one pass over the edges.

Error: that of the algorithm inside; the sums are the same.

Source: exchanging the integration variable of the definition.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from jaxconv._cost import Cost
from jaxconv._dtypes import accumulation_dtype
from jaxconv._spec import Problem, dilated


def supports(problem: Problem) -> str | None:
    """Return the reason if the kernel is dilated, or there is nothing to gain, else None."""
    if max(problem.spec.rhs_dilation, default=1) > 1:
        return f"the kernel is dilated, by {problem.spec.rhs_dilation}"
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
        ),
    )


def exchanged(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Correlate canonical operands in each other's place, whatever the edges hold; ``compute`` is what does it."""
    return lax.rev(jnp.swapaxes(compute(inner(problem), w, x), 1, 2), tuple(range(3, x.ndim)))


def _edges(problem: Problem) -> list[tuple[int, int, int]]:
    """Return the stretches of samples that not every output reads: an axis, where they start and where they end."""
    edges = []
    for axis, (samples, taps, outputs) in enumerate(
        zip(problem.input_shape, problem.kernel_shape, problem.output_shape, strict=True)
    ):
        (low, _), dilation = problem.spec.padding[axis], problem.spec.lhs_dilation[axis]
        # The first output reads up to the last tap, the last one from its own first tap on.
        start = max(-((low - (outputs - 1) * problem.spec.strides[axis]) // dilation), 0)
        stop = min(-((low - taps) // dilation), samples)
        if start >= stop:
            return [(axis, 0, samples)]
        edges += [(axis, *edge) for edge in ((0, start), (stop, samples)) if edge[0] < edge[1]]
    return edges


def cost(problem: Problem) -> Cost:
    """Return the cost of looking at the edges, without the convolution inside."""
    itemsize = accumulation_dtype(problem.spec.out_dtype).itemsize
    edges = _edges(problem) if np.issubdtype(problem.dtype, np.inexact) else []
    seen = itemsize * sum(
        math.prod(problem.x_shape) * (stop - start) // problem.input_shape[a] for a, start, stop in edges
    )
    # Operands and result pass through the branches.
    passed = itemsize * sum(map(math.prod, (problem.x_shape, problem.w_shape, problem.y_shape)))
    terms = {"call": 1, "bytes": seen, "edges": len(edges), "passed": passed if edges else 0}
    return Cost(0, 0, seen, 0.0, 0.0, terms)


def run(
    problem: Problem, x: jax.Array, w: jax.Array, compute: Callable[[Problem, jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolve canonical operands; ``compute`` is what convolves the exchanged ones."""
    if problem.spec.convention == "convolution":
        w = lax.rev(w, tuple(range(3, w.ndim)))
    edges = _edges(problem)
    if not edges or not jnp.issubdtype(x.dtype, jnp.inexact):
        return exchanged(problem, x, w, compute)
    finite = [jnp.isfinite(lax.slice_in_dim(x, *edge, axis=3 + axis)).all() for axis, *edge in edges]
    good = functools.reduce(jnp.logical_and, finite)

    # XLA on CPU copies what enters a branch if axes of length 1 stand elsewhere than by default.
    def squeezed(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda x, w: jnp.squeeze(function(x.reshape(problem.x_shape), w.reshape(problem.w_shape)))

    all_at_once = functools.partial(exchanged, problem, compute=compute)
    one_by_one = functools.partial(_one_by_one, problem)
    y = lax.cond(good, squeezed(all_at_once), squeezed(one_by_one), jnp.squeeze(x), jnp.squeeze(w))
    return y.reshape(problem.y_shape)


def _one_by_one(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Sum each output over the samples that it reads."""
    spec, core, ndim = problem.spec, inner(problem), problem.spec.ndim
    accumulator = accumulation_dtype(spec.out_dtype)
    x, w = x.astype(accumulator), w.astype(accumulator)
    w = lax.pad(w, jnp.zeros((), accumulator), [(0, 0, 0)] * 3 + [(*pads, 0) for pads in core.spec.padding])
    reach = [dilated(*axis) for axis in zip(problem.input_shape, spec.lhs_dilation, strict=True)]
    contracted = tuple(range(2, x.ndim))

    def output(index: jax.Array) -> jax.Array:
        start = [jnp.zeros((), index.dtype)] * 3
        read = jnp.ones(problem.input_shape, bool)
        for axis in range(ndim):
            shift = index[axis] * spec.strides[axis]
            tap = lax.broadcasted_iota(index.dtype, problem.input_shape, axis) * spec.lhs_dilation[axis]
            tap += spec.padding[axis][0] - shift
            read &= (tap >= 0) & (tap < problem.kernel_shape[axis])
            start.append((problem.output_shape[axis] - 1) * spec.strides[axis] - shift)
        window = lax.dynamic_slice(w, start, (*w.shape[:3], *reach))
        window = window[(..., *(slice(None, None, step) for step in spec.lhs_dilation))]
        dimensions = ((contracted, contracted), ((0,), (0,)))
        return lax.dot_general(jnp.where(read, x, 0), window, dimensions, precision=spec.precision)

    indices = np.indices(problem.output_shape, np.int32).reshape(ndim, -1).T
    y = lax.map(output, jnp.asarray(indices))
    return jnp.moveaxis(y, 0, -1).reshape(problem.y_shape).astype(spec.out_dtype)
