"""What an eager call costs beyond the computation."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import jaxconv.lax
import jaxconv.signal
from experiments.speed.records import Call

CALLS, ROUNDS = 200, 30


def measure(rounds: int = ROUNDS) -> list[Call]:
    """Time eager calls on a few samples, beside that of an empty jitted function of two arrays."""
    x, w = jnp.arange(8.0, dtype=jnp.float32), jnp.ones(3, jnp.float32)
    image, kernel = x[None, None], w[None, None]
    empty = jax.jit(lambda x, w: x)
    functions: dict[str, Callable[[], jax.Array]] = {
        "an empty jitted function": lambda: empty(x, w),
        "jaxconv.signal.convolve": lambda: jaxconv.signal.convolve(x, w),
        "jaxconv.signal.correlate": lambda: jaxconv.signal.correlate(x, w, mode="same"),
        "jaxconv.lax.conv_general_dilated": lambda: jaxconv.lax.conv_general_dilated(image, kernel, (1,), "SAME"),
        "jax.scipy.signal.convolve": lambda: jax.scipy.signal.convolve(x, w),
        "jax.lax.conv_general_dilated": lambda: lax.conv_general_dilated(image, kernel, (1,), "SAME"),
    }
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, fn in functions.items():
            start, result = time.perf_counter(), None
            for _ in range(CALLS):
                result = fn()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - start) / CALLS)
    medians = {name: float(np.median(samples[1:])) for name, samples in times.items()}  # the first round compiles
    base = medians["an empty jitted function"]
    return [Call(name, float(f"{t:.3g}"), float(f"{t - base:.3g}")) for name, t in medians.items()]
