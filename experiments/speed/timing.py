"""Times of compiled functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def seconds_a_call(fn: Callable[..., Any], arguments: Sequence[Any], budget: float = 0.1, most: int = 50) -> float:
    """Return the shortest time of a call: what the function takes when nothing else runs.

    `fn` is warmed up first; then it is called until `budget` seconds have passed, at least 3 and at most `most` times.
    """
    jax.block_until_ready(fn(*arguments))
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget and len(times) < most):
        start = time.perf_counter()
        jax.block_until_ready(fn(*arguments))
        times.append(time.perf_counter() - start)
    return float(np.min(times))
