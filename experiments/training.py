"""Gradient descent as one compiled program: `scan` over steps, `vmap` over independent runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.core import NonFiniteError


class Fit(NamedTuple):
    """`params` after the last step; `losses` [steps, runs, ...] before every step, what `record` gave after it."""

    params: Any
    losses: np.ndarray
    records: Any


def stack(trees: list[Any]) -> Any:
    """Put equal pytrees side by side, along a new leading axis: the axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _keep_nothing(params: Any) -> tuple[()]:
    del params
    return ()


class Trainer:
    """Minimises ``loss(params, data, batch)`` for several independent runs at once.

    All steps are one compiled program, all runs one batch of it, and the program is compiled once for as many fits of
    the same shapes as are asked for.

    Parameters
    ----------
    loss
        Returns the loss of one run, or an array of losses that share no parameters: their sum is differentiated.
    optimizer
        Any optax optimiser; every run has a state of its own.
    what
        Names the training in an error message.
    record
        Called with the parameters of one run after every step; its results come back as [steps, runs, ...].
    """

    def __init__(
        self,
        loss: Callable[[Any, Any, Any], jax.Array],
        optimizer: optax.GradientTransformation,
        *,
        what: str,
        record: Callable[[Any], Any] = _keep_nothing,
    ):
        self._what = what
        self._init = jax.jit(jax.vmap(optimizer.init))

        def step(params: Any, state: Any, data: Any, batch: Any) -> Any:
            def total(params: Any) -> tuple[jax.Array, jax.Array]:
                values = loss(params, data, batch)
                return values.sum(), values

            (_, values), gradient = jax.value_and_grad(total, has_aux=True)(params)
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (values, record(params))

        def advance(params: Any, state: Any, data: Any, batches: Any, steps: int) -> Any:
            def body(carry: Any, batch: Any) -> Any:
                params, state = carry
                return jax.vmap(step)(params, state, data, batch)

            if steps == 1:
                # A fit in as many chunks as steps has no compiled loop at all.
                carry, done = body((params, state), jax.tree.map(lambda array: array[0], batches))
                return carry, jax.tree.map(lambda array: array[None], done)
            return jax.lax.scan(body, (params, state), batches, length=steps)

        self._advance = jax.jit(advance, static_argnames="steps")

    def fit(
        self,
        params: Any,
        data: Any = None,
        batches: Any = None,
        *,
        steps: int,
        chunks: int = 1,
        tick: Callable[[], object] = lambda: None,
    ) -> Fit:
        """Train from `params`.

        Parameters
        ----------
        params, data
            Pytrees with a leading axis of runs.
        batches
            Pytree whose leaves are [steps, runs, ...]; one slice goes to each step. None: each sees all of `data`.
        steps
            Number of steps.
        chunks
            Number of equal pieces in which they are run. After each, `tick` is called and the losses are looked at.

        Raises
        ------
        NonFiniteError
            As soon as a chunk has a loss that is not finite.
        ValueError
            If the number of steps is not a multiple of `chunks`.
        """
        if steps % chunks:
            raise ValueError(f"{steps} steps cannot be cut in {chunks} equal chunks; choose a divisor of {steps}")
        size = steps // chunks
        state = self._init(params)
        losses, records = [], []
        for first in range(0, steps, size):
            piece = jax.tree.map(lambda array, first=first: array[first : first + size], batches)
            (params, state), done = self._advance(params, state, data, piece, steps=size)
            values, recorded = jax.tree.map(np.asarray, done)
            self._require_finite(values, first)
            losses.append(values)
            records.append(recorded)
            tick()
        return Fit(params, np.concatenate(losses), jax.tree.map(lambda *pieces: np.concatenate(pieces), *records))

    def _require_finite(self, losses: np.ndarray, first: int) -> None:
        wrong = np.argwhere(~np.isfinite(losses))
        if len(wrong):
            step, *run = map(int, wrong[0])
            raise NonFiniteError(
                f"{self._what}: the loss became {losses[tuple(wrong[0])]} at step {first + step} of run "
                f"{tuple(run)}, and the training stops there. A smaller learning rate is the usual remedy."
            )
