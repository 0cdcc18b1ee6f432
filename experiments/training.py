"""Gradient descent as one compiled program: `scan` over steps, `vmap` over independent runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.core import NonFiniteError


class Fit(NamedTuple):
    """`params` after the last step, `losses` [steps, runs, ...] before each, `records`: what `record` gave after each."""

    params: Any
    losses: np.ndarray
    records: Any


def stack(trees: list[Any]) -> Any:
    """Put equal pytrees side by side, along a new leading axis: the axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def fit(
    loss: Callable[[Any, Any, Any], jax.Array],
    optimizer: optax.GradientTransformation,
    params: Any,
    data: Any = None,
    batches: Any = None,
    *,
    steps: int,
    what: str,
    record: Callable[[Any], Any] = lambda params: (),
    chunks: int = 1,
    tick: Callable[[], object] = lambda: None,
) -> Fit:
    """Minimise `loss(params, data, batch)` for several independent runs at once.

    All steps are one compiled program, all runs one batch of it.

    Parameters
    ----------
    loss
        Returns the loss of one run, or an array of losses that share no parameters: their sum is differentiated.
    optimizer
        Any optax optimiser; every run has a state of its own.
    params, data
        Pytrees with a leading axis of runs.
    batches
        Pytree whose leaves are [steps, runs, ...]; one slice goes to each step. None: every step sees all of `data`.
    what
        Names the training in an error message.
    record
        Called with the parameters of one run after every step; its results come back as [steps, runs, ...].
    chunks
        Number of equal pieces in which the steps are run. After each, `tick` is called and the losses are looked at.

    Raises
    ------
    NonFiniteError
        As soon as a chunk has a loss that is not finite.
    ValueError
        If the number of steps is not a multiple of `chunks`.
    """
    if steps % chunks:
        raise ValueError(f"{steps} steps cannot be cut in {chunks} equal chunks; choose a divisor of {steps}")

    def step(params: Any, state: Any, data: Any, batch: Any) -> tuple[Any, Any, jax.Array, Any]:
        def total(params: Any) -> tuple[jax.Array, jax.Array]:
            values = loss(params, data, batch)
            return values.sum(), values

        (_, values), gradient = jax.value_and_grad(total, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, values, record(params)

    @jax.jit
    def advance(params: Any, state: Any, data: Any, batches: Any) -> Any:
        def body(carry: Any, batch: Any) -> Any:
            params, state, values, recorded = jax.vmap(step)(*carry, data, batch)
            return (params, state), (values, recorded)

        return jax.lax.scan(body, (params, state), batches, length=steps // chunks)

    state = jax.vmap(optimizer.init)(params)
    losses, records = [], []
    for first in range(0, steps, steps // chunks):
        piece = jax.tree.map(partial(_rows, first, steps // chunks), batches)
        (params, state), (values, recorded) = jax.block_until_ready(advance(params, state, data, piece))
        losses.append(np.asarray(values))
        records.append(jax.tree.map(np.asarray, recorded))
        _require_finite(losses[-1], first, what)
        tick()
    return Fit(params, np.concatenate(losses), jax.tree.map(lambda *pieces: np.concatenate(pieces), *records))


def _rows(first: int, count: int, array: Any) -> Any:
    return array[first : first + count]


def _require_finite(losses: np.ndarray, first: int, what: str) -> None:
    wrong = np.argwhere(~np.isfinite(losses))
    if len(wrong):
        step, *run = map(int, wrong[0])
        raise NonFiniteError(
            f"{what}: the loss became {losses[tuple(wrong[0])]} at step {first + step} of run {tuple(run)}, and the training "
            "stops there. A smaller learning rate is the usual remedy."
        )
