"""Results that hold of finite operands alone, as zeros were multiplied with what the definition does not read.

A product of zero with what is no finite number is not a number, and would spoil outputs that do not read that sample.
"""

import dataclasses
from typing import Literal

import jax
from jax import lax
from jax import numpy as jnp

from jaxconv._algorithms import _windows, xla
from jaxconv._spec import Problem


def or_by_definition(
    problem: Problem, y: jax.Array, x: jax.Array, w: jax.Array, *, look_at: Literal["result", "input"]
) -> jax.Array:
    """Return a result if all of the ``"result"``, or all of the ``"input"``, is finite, else that of the definition."""
    # XLA on CPU copies what enters a branch unless it lies in memory in the order of its axes, without those of length
    # 1: as the caller holds it. Without a barrier transpositions inside the branch would be moved in front of it.
    shapes = (problem.x_shape, problem.w_shape, problem.y_shape)
    of_x, of_w, of_y = (
        _windows.Layout(tuple(axis for axis in order if shape[axis] > 1))
        for order, shape in zip(problem.spec.orders, shapes, strict=True)
    )

    def by_definition(y: jax.Array, x: jax.Array, w: jax.Array) -> jax.Array:
        return of_y.arrange(_defined(problem, of_x.undo(x, 3 + problem.spec.ndim), of_w.undo(w, 3 + problem.spec.ndim)))

    operands = lax.optimization_barrier((of_y.arrange(y), of_x.arrange(x), of_w.arrange(w)))
    seen = operands[0] if look_at == "result" else operands[1]
    y = lax.cond(jnp.isfinite(seen).all(), lambda y, x, w: y, by_definition, *operands)
    return of_y.undo(y, 3 + problem.spec.ndim)


def _defined(problem: Problem, x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolve by the definition, one group after the other, which compiles once for all of them."""
    if problem.groups == 1:
        return xla.run(problem, x, w)
    alone = dataclasses.replace(problem, groups=1)
    return lax.map(lambda pair: xla.run(alone, pair[0][None], pair[1][None])[0], (x, w))
