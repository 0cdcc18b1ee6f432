"""Time against the size of the filter, for every algorithm, and what the planner would have chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxconv
from experiments.core import Context
from experiments.fourier_plans import able, transforms
from experiments.speed.timing import interleaved
from jaxconv import signal

LIMIT = 0.1  # seconds: what is modelled to take longer is not timed


class Timing(NamedTuple):
    """One filter width: seconds by algorithm, the shortest of several calls; and the planner's choice, as modelled."""

    taps: int
    seconds: dict[str, float]
    chosen: str
    modelled: float
    by_transform: bool

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def regret(self) -> float:
        """Return how many times the fastest algorithm's time the planner's choice takes."""
        return self.seconds[self.chosen] / self.seconds[self.fastest]

    @property
    def spread(self) -> float:
        return max(self.seconds.values()) / self.seconds[self.fastest]


def sweeps(context: Context) -> dict[str, tuple[tuple[int, ...], list[int]]]:
    """Return the shapes of signals, with the widths of the filters for each."""
    if context.quick:
        return {"1-D": ((16384,), [3, 65, 1025]), "2-D": ((128, 128), [3, 33])}
    widths = [3, 5, 9, 17, 33, 65, 129, 257, 513, 1025, 2049, 4097, 8193]
    return {"1-D": ((65536,), widths), "2-D": ((256, 256), [3, 5, 7, 9, 13, 17, 25, 33, 49, 65])}


def time_one(rng: np.random.Generator, shape: tuple[int, ...], width: int, budget: float) -> Timing:
    """Time all algorithms that can run a convolution of float32 in `same` mode, in turn."""
    kernel = (width,) * len(shape)
    x, w = (jnp.asarray(rng.standard_normal(size), jnp.float32) for size in (shape, kernel))
    (platform,) = {device.platform for device in x.devices()}
    decision: Any = jaxconv.plan(shape, kernel, mode="same", platform=platform)[0].forward
    chosen = decision.chosen
    timed = {name: each for name, each in able(decision).items() if name == chosen or each.seconds < LIMIT}
    programs = [jax.jit(partial(signal.convolve, mode="same", method=name)) for name in timed]

    def call(program: Any) -> None:
        jax.block_until_ready(program(x, w))

    calls = [partial(call, program) for program in programs]
    for warm in calls:
        warm()
    times = interleaved(calls, [0.0] * len(calls), budget * len(calls))
    return Timing(
        width,
        {name: min(each) for name, each in zip(timed, times, strict=True)},
        chosen,
        timed[chosen].seconds,
        transforms(timed[chosen]),
    )


def measure(context: Context, tick: Callable[[], object]) -> dict[str, list[Timing]]:
    found: dict[str, list[Timing]] = {}
    for number, (name, (shape, widths)) in enumerate(sweeps(context).items()):
        rng = context.rng(6, number)
        found[name] = []
        for width in widths:
            found[name].append(time_one(rng, shape, width, 0.1 if context.quick else 0.3))
            tick()
    return found
