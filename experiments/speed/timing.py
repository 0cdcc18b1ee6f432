"""Times of compiled functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.speed import cores
from jaxconv._measure import WARMED


def seconds_of(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# How many samples a call has at least, by its length in seconds; and how many any has at most.
FEWEST = ((0.5, 2), (0.05, 3), (0.0, 5))
MOST = 50
# Samples that took at most CHEAP seconds are taken again, up to ATTEMPTS times in all, if cores have moved apart.
CHEAP, ATTEMPTS = 10.0, 3


def interleaved(
    calls: Sequence[Callable[[], Any]], pauses: Sequence[float], budget: float, seed: int = 0
) -> list[list[float]]:
    """Time calls in turn, round after round, each round in another order, so that all meet the same disturbances.

    Short ones are warmed up before each sample, as in `jaxconv.autotune`. Every call is timed as often as `FEWEST`
    says, then until its share of the `budget`, in seconds, is spent. `pauses` are the seconds to wait after each, while
    threads of its library still spin; they count as spent. Where cores move apart meanwhile (see
    `experiments.speed.cores`) all are timed again, if that does not take too long.
    """
    times: list[list[float]] = []
    for _ in range(ATTEMPTS):
        cores.wait_until_close()
        start = time.perf_counter()
        times = _sampled(calls, pauses, budget, seed)
        if time.perf_counter() - start > CHEAP or cores.are_close():
            break
    return times


def _sampled(
    calls: Sequence[Callable[[], Any]], pauses: Sequence[float], budget: float, seed: int
) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    times: list[list[float]] = [[] for _ in calls]
    share = budget / max(len(calls), 1)
    while waiting := [i for i, t in enumerate(times) if _wants_more(t, share - pauses[i] * len(t))]:
        for i in rng.permutation(waiting):
            if times[i] and min(times[i]) < WARMED:
                calls[i]()
            times[i].append(seconds_of(calls[i]))
            time.sleep(pauses[i])
    return times


def _wants_more(times: list[float], share: float) -> bool:
    if not times:
        return True
    fewest = next(count for length, count in FEWEST if min(times) >= length)
    return len(times) < fewest or (sum(times) < share and len(times) < MOST)
