"""Bend constants that were fitted to times, so that the fastest algorithms are chosen.

A fit to times is off by as much for algorithms that nobody would choose as for those between which the planner has to
decide. Here the constants move as far as that makes the choices better: what a choice costs beside the fastest one, of
the algorithms weighed by how likely they are to be chosen (a smooth form of the regret), and beside it what keeps the
modelled times near to the measured ones and the constants near to where they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize

from jaxconv._algorithms import REGISTRY
from jaxconv._plan import advantage

# How sharply the modelled times decide: an algorithm that is 15 % faster is twice as likely to be chosen.
SHARPNESS = 5.0
# The logarithm of a ratio of times counts up to this one.
MOST = 3.0
# What the times count that the model is off by, like the distance beyond OFF and like its square below; and, for each
# constant, the square of the logarithm by which it moved.
TIMES = 0.3
OFF = 0.3
MOVED = 1e-3
# Problems that take less than so many seconds count less: calls take as long.
SHORT = 3e-5
SHORT_COUNTS = 0.2

# A constant: of an algorithm, for a term of its cost.
Key = tuple[str, str]
# What can run a problem, by name: the measured seconds, and the amounts of the terms that model them.
Candidates = Mapping[str, tuple[float, Mapping[Key, float]]]


class _Choices:
    """All sets of candidates among which there is something to choose, as arrays with a row for each candidate."""

    def __init__(self, problems: Sequence[Candidates], keys: Sequence[Key]) -> None:
        index = {key: number for number, key in enumerate(keys)}
        amounts, times, advantages, starts, weights = [], [], [], [], []
        for candidates in problems:
            local = [name for name in candidates if REGISTRY[name].local]
            for names in dict.fromkeys((tuple(candidates), tuple(local))):
                if len(names) < 2:
                    continue
                starts.append(len(times))
                best = min(candidates[name][0] for name in names)
                weights.append(1.0 if best > SHORT else SHORT_COUNTS)
                for name in names:
                    seconds, terms = candidates[name]
                    row = np.zeros(len(keys))
                    for key, amount in terms.items():
                        if key in index:
                            row[index[key]] = amount
                    amounts.append(row)
                    times.append(seconds)
                    advantages.append(advantage(REGISTRY[name]))
        self.number = len(starts)
        self._amounts = np.array(amounts)
        self._starts = np.array(starts)
        self._sizes = np.diff([*starts, len(times)])
        self._times = np.log(times)
        self._advantages = np.log(advantages)
        self._lost = np.minimum(self._times - self._each(np.minimum.reduceat(self._times, starts)), MOST)
        self._weights = self._each(np.array(weights) / sum(weights))

    def _each(self, values: np.ndarray) -> np.ndarray:
        """Repeat what belongs to a set for each of its candidates."""
        return np.repeat(values, self._sizes)

    def loss(self, moved: np.ndarray, logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        """Return what the choices lose if the logarithms of the constants move, and its gradient."""
        constants = np.exp(logarithms + moved)
        seconds = self._amounts @ constants
        off = np.log(seconds) - self._times
        scores = -SHARPNESS * (np.log(seconds) + self._advantages)
        scores = np.exp(scores - self._each(np.maximum.reduceat(scores, self._starts)))
        chosen = scores / self._each(np.add.reduceat(scores, self._starts))
        regret = np.add.reduceat(chosen * self._lost, self._starts)
        distance = np.sqrt(1 + (off / OFF) ** 2)
        value = self._weights @ (chosen * self._lost + TIMES * (distance - 1)) + MOVED * moved @ moved
        slope = -SHARPNESS * chosen * (self._lost - self._each(regret)) + TIMES * off / (OFF**2 * distance)
        gradient = constants * (self._amounts.T @ (self._weights * slope / seconds))
        return float(value), gradient + 2 * MOVED * moved


def bend(constants: Mapping[Key, float], problems: Sequence[Candidates]) -> dict[Key, float]:
    """Return the constants that make the choices among the candidates better; terms without one cost nothing."""
    keys = list(
        dict.fromkeys(key for each in problems for _, terms in each.values() for key in terms if key in constants)
    )
    choices = _Choices(problems, keys)
    if not choices.number:
        return dict(constants)
    logarithms = np.log([constants[key] for key in keys])
    best = minimize(choices.loss, np.zeros(len(keys)), args=(logarithms,), jac=True, method="L-BFGS-B")
    return {**constants, **dict(zip(keys, np.exp(logarithms + best.x).tolist(), strict=True))}
