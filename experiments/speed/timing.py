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


# How many samples a call has at least, by its length in seconds; and how many any has at most.
FEWEST = ((0.5, 2), (0.05, 3), (0.0, 5))
MOST = 50


def interleaved(
    calls: Sequence[Callable[[], Any]], pauses: Sequence[float], budget: float, seed: int = 0
) -> list[list[float]]:
    """Time calls in turn, round after round, each round in another order, so that all meet the same disturbances.

    Every call is timed as often as `FEWEST` says, then until its share of the `budget`, in seconds, is spent. `pauses`
    are the seconds to wait after each, while threads of its library still spin; they count as spent.
    """
    rng = np.random.default_rng(seed)
    times: list[list[float]] = [[] for _ in calls]
    share = budget / max(len(calls), 1)
    while waiting := [i for i, t in enumerate(times) if _wants_more(t, share - pauses[i] * len(t))]:
        for i in rng.permutation(waiting):
            start = time.perf_counter()
            calls[i]()
            times[i].append(time.perf_counter() - start)
            time.sleep(pauses[i])
    return times


def _wants_more(times: list[float], share: float) -> bool:
    if not times:
        return True
    fewest = next(count for length, count in FEWEST if min(times) >= length)
    return len(times) < fewest or (sum(times) < share and len(times) < MOST)
