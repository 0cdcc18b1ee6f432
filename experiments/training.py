"""Many independent runs as one compiled program: `vmap` over runs, dealt out to the devices, and `scan` over steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from experiments.core import NonFiniteError, require_finite, usable_devices


class Fit(NamedTuple):
    """`params` after the last step; `losses` [steps, runs, ...] before every step, what `record` gave after it."""

    params: Any
    losses: np.ndarray
    records: Any


def stack(trees: list[Any]) -> Any:
    """Put equal pytrees side by side, along a new leading axis: the axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def spread(
    function: Callable[..., Any], in_axes: int | tuple[int | None, ...] = 0, out_axes: int | tuple[int, ...] = 0
) -> Callable[..., Any]:
    """Return ``jit(vmap(function, in_axes, out_axes))`` with its runs dealt out to all usable devices.

    Each device computes a block of the runs, by `jax.shard_map`. Where they do not divide evenly, the first runs are
    computed twice and dropped once. As no run sees another, the results are those of one device, up to rounding. (Draw
    what is random from the number of the run, not on the device, and it stays so.)

    Parameters
    ----------
    function
        What is computed for one run, from pytrees to a pytree. It may differentiate what all runs share, too: the
        gradient is that of one run.
    in_axes, out_axes
        Where each argument and each result has its axis of runs, or one number for all; None: the runs share it.
    """
    mapped = jax.vmap(function, in_axes, out_axes)
    alone = jax.jit(mapped)

    @partial(jax.jit, static_argnums=0)
    def together(mesh: Mesh, *arguments: Any) -> Any:
        runs = count(arguments)
        spare = -runs % mesh.size
        if spare:
            order = np.arange(runs + spare) % runs
            arguments = _along(lambda leaf, axis: jnp.take(leaf, order, axis), arguments, in_axes)
        # Unchecked: with the check, the gradient of what the runs share would be summed over the devices.
        results = jax.shard_map(
            mapped, mesh=mesh, in_specs=_specs(in_axes), out_specs=_specs(out_axes), check_vma=False
        )(*arguments)
        if spare:
            results = _along(lambda leaf, axis: jax.lax.slice_in_dim(leaf, 0, runs, axis=axis), results, out_axes)
        return results

    def count(arguments: tuple[Any, ...]) -> int:
        sizes = []
        _along(lambda leaf, axis: sizes.append(np.shape(leaf)[axis]), arguments, in_axes)
        if not sizes or set(sizes) != {sizes[0]} or not sizes[0]:
            raise ValueError(f"every array needs the same number of runs, one or more; these have {sizes}")
        return sizes[0]

    def run(*arguments: Any) -> Any:
        devices = usable_devices()[: count(arguments)]
        return together(Mesh(devices, ("runs",)), *arguments) if len(devices) > 1 else alone(*arguments)

    return run


def _specs(axes: int | tuple[int | None, ...] | None) -> Any:
    if isinstance(axes, tuple):
        return tuple(map(_specs, axes))
    return PartitionSpec() if axes is None else PartitionSpec(*[None] * axes, "runs")


def _along(change: Callable[[Any, int], Any], trees: Any, axes: int | tuple[int | None, ...] | None) -> Any:
    """Apply a function to each array and its axis of runs, where it has one."""
    if isinstance(axes, tuple):
        return tuple(_along(change, tree, axis) for tree, axis in zip(trees, axes, strict=True))
    return trees if axes is None else jax.tree.map(lambda leaf: change(leaf, axes), trees)


def _keep_nothing(params: Any) -> tuple[()]:
    del params
    return ()


class Trainer:
    """Minimises ``loss(params, data, batch)`` for several independent runs at once.

    All steps are one compiled program, all runs one batch of it (on each device, see `spread`), and the program is
    compiled once for as many fits of the same shapes as are asked for.

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
        self._init = spread(optimizer.init)

        def step(params: Any, state: Any, data: Any, batch: Any) -> Any:
            def total(params: Any) -> tuple[jax.Array, jax.Array]:
                values = loss(params, data, batch)
                return values.sum(), values

            (_, values), gradient = jax.value_and_grad(total, has_aux=True)(params)
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (values, record(params))

        def advance(params: Any, state: Any, data: Any, batches: Any, *, steps: int) -> Any:
            def body(carry: Any, batch: Any) -> Any:
                params, state = carry
                return step(params, state, data, batch)

            if steps == 1:
                # A fit in as many chunks as steps has no compiled loop at all.
                carry, done = body((params, state), jax.tree.map(lambda array: array[0], batches))
                return carry, jax.tree.map(lambda array: array[None], done)
            return jax.lax.scan(body, (params, state), batches, length=steps)

        self._advance = cache(
            lambda steps: spread(partial(advance, steps=steps), in_axes=(0, 0, 0, 1), out_axes=(0, 1))
        )

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
            As soon as a chunk has a loss that is not finite, or leaves parameters or records that are not.
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
            (params, state), done = self._advance(size)(params, state, data, piece)
            values, recorded = jax.tree.map(np.asarray, done)
            self._require_finite(values, first)
            require_finite(f"{self._what}: parameters after step {first + size - 1}", params)
            require_finite(f"{self._what}: records of steps {first} to {first + size - 1}", recorded)
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
