"""Fit the constants of the planner's cost model to measured times.

For each algorithm and dtype the model is a sum of terms (see `jaxconv._cost.Cost`) times non-negative constants, fitted
to the logarithm of the times on random problems, so that a factor of two counts the same everywhere, and then bent so
that the choices among them are the better for it (see `experiments.speed.choices`). All algorithms that can run a
problem are timed in turn, as those of the page of speed are (see `experiments.speed.timing`).

The times are kept in a file, to which every run adds: a model with other terms can be fitted to the same times.
Constants of an earlier calibration count too, scaled to the speed of this machine: those that the times say little
about stay where they were, and a single machine's peculiarities bend the others less.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
import json
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.optimize import least_squares
from tqdm import tqdm

from experiments.speed import choices, cores, machine, problems, timing
from jaxconv import _store
from jaxconv._algorithms import REGISTRY, Algorithm
from jaxconv._autotune import setting_of
from jaxconv._measure import Trial, draw_operands, prepare, settle_allocator
from jaxconv._plan import decide
from jaxconv._simplify import simplify
from jaxconv._spec import Problem
from jaxconv._tuning import Measurement, Setting, Timing

# Other dtypes take the constants of the one of their speed class (see `jaxconv._cost`).
DTYPES = ("float32", "float64", "complex64", "int32", "int8")
# An algorithm that takes more seconds than this, modelled, or in its first call, is not timed.
SLOWEST = 1.0
FEWEST = 16
# So many more problems are drawn to find those for rare algorithms: some run no integers at all.
MOST_MORE = 1000
# Seconds in which the calls of an algorithm for a problem are timed.
BUDGET = 0.03
# Seconds to wait for cores that have moved apart, for each problem on average.
PATIENCE = 1.0
# So many problems are timed before their times are written to the file, and the compiled programs dropped.
BATCH = 20
# A time that the model does not describe (another process, a page fault) must not bend the fit.
OUTLIER = 0.3
# What a constant of an earlier calibration counts, beside a time: both by the logarithm of what they are off.
BEFORE = 0.8
# Bounds of the logarithm of a constant, in seconds: a term that plays no part ends at the lower one.
LOGARITHMS = (-36.0, 0.0)
LEAST = 2 * float(np.exp(LOGARITHMS[0]))

Constants = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A measured time of an algorithm, in seconds, and what it ran inside if it only rearranges."""

    problem: Problem
    seconds: float
    inner: str | None = None


def measure(count: int, dtype: str, seed: int, setting: Setting) -> Iterator[Measurement]:
    """Time all algorithms on `count` random problems, and rare ones on as many more as give them `FEWEST` times."""
    settle_allocator()
    cores.have_patience(PATIENCE * count)
    drawn = problems.draw(np.random.default_rng(seed), np.dtype(dtype))
    taken: Counter[str] = Counter()
    with tqdm(total=count, desc=dtype, unit="problem") as bar:
        for number, problem in enumerate(drawn):
            wanted = [a for a in REGISTRY.values() if number < count or taken[a.name] < FEWEST]
            if not wanted or number == count + MOST_MORE:
                return
            timings = _timings(problem, wanted)
            taken.update(timing.algorithm for timing in timings)
            if timings:
                fastest = min(timings, key=lambda timing: timing.measured or 0.0)
                yield Measurement(setting, problem, fastest.algorithm, tuple(timings))
            bar.update(number < count)


def _timings(problem: Problem, algorithms: Sequence[Algorithm]) -> list[Timing]:
    """Return the median seconds of each algorithm that can run the problem."""
    names = {algorithm.name for algorithm in algorithms}
    candidates = {
        c.name: c
        for c in decide(problems.with_method(problem, "direct"), "cpu").candidates
        if c.name in names and c.seconds is not None and c.seconds <= SLOWEST
    }
    operands = draw_operands(problem) if candidates else ()
    trials = {name: prepare(problems.with_method(problem, name), operands) for name in candidates}
    calls = {
        name: trial
        for name, trial in trials.items()
        if isinstance(trial, Trial) and trial.samples[0] * trial.repeats <= SLOWEST
    }
    waiting = [functools.partial(_wait, trial.call) for trial in calls.values()]
    times = timing.interleaved(waiting, [0.0] * len(waiting), BUDGET * len(waiting))
    timings = []
    for (name, trial), seconds in zip(calls.items(), times, strict=True):
        modelled, measured = candidates[name].seconds or 0.0, float(np.median(seconds)) / trial.repeats
        timings.append(Timing(name, candidates[name].inner, modelled, measured, ""))
    return timings


def _able(algorithm: Algorithm, problem: Problem) -> bool:
    return algorithm.supports(problem) is None


def _wait(call: Callable[[], Any]) -> None:
    jax.block_until_ready(call())


def fit(
    samples: Sequence[Sample], algorithm: Algorithm, others: Constants, before: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Fit an algorithm's constants to measured times.

    Parameters
    ----------
    samples
        The measured times.
    algorithm
        The algorithm.
    others
        The constants of the algorithms that it may run inside.
    before
        Its constants by an earlier calibration, if any, for the speed of this machine.

    Returns
    -------
    dict
        Seconds per unit of each term.
    """
    before = {term: seconds for term, seconds in (before or {}).items() if seconds > LEAST}
    rows = [algorithm.cost(sample.problem).terms for sample in samples]
    times = np.array([sample.seconds for sample in samples])
    inside = np.array([_seconds_inside(algorithm, sample.problem, others, sample.inner) for sample in samples])
    names = list(dict.fromkeys(name for row in rows for name, amount in row.items() if amount))
    terms = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    # Every term starts where it was, or with an equal share of the time of the problems that have it.
    with np.errstate(divide="ignore"):
        shares = [float(np.median((times / column)[column > 0])) / len(names) for column in terms.T]
    start = np.log(np.array([before.get(name, share) for name, share in zip(names, shares, strict=True)]))
    known = np.array([name in before for name in names])

    def residual(parameters: np.ndarray) -> np.ndarray:
        off = np.log(inside + terms @ np.exp(parameters)) - np.log(times)
        return np.concatenate([off, BEFORE * (parameters - start)[known]])

    best = least_squares(residual, np.clip(start, *LOGARITHMS), bounds=LOGARITHMS, loss="soft_l1", f_scale=OUTLIER)
    return before | dict(zip(names, np.exp(best.x).tolist(), strict=True))


def _seconds_inside(algorithm: Algorithm, problem: Problem, constants: Constants, inner: str | None = None) -> float:
    """Return the modelled seconds of what an algorithm that only rearranges runs inside: `inner`, or the fastest."""
    if algorithm.inner is None:
        return 0.0
    simple, _ = simplify(algorithm.inner(problem))
    able = [REGISTRY[inner]] if inner is not None and inner in constants else []
    able = able or [a for a in REGISTRY.values() if a.local and a.name in constants and _able(a, simple)]
    return min(_seconds(_terms(a, simple, constants), constants) for a in able)


def _terms(algorithm: Algorithm, problem: Problem, constants: Constants) -> dict[choices.Key, float]:
    """Return the amounts of all terms that model an algorithm, with those of the fastest one that it may run inside."""
    terms = {(algorithm.name, term): amount for term, amount in algorithm.cost(problem).terms.items() if amount}
    if algorithm.inner is None:
        return terms
    simple, _ = simplify(algorithm.inner(problem))
    able = [a for a in REGISTRY.values() if a.local and a.name in constants and _able(a, simple)]
    inside = min((_terms(a, simple, constants) for a in able), key=lambda terms: _seconds(terms, constants))
    return {key: terms.get(key, 0.0) + inside.get(key, 0.0) for key in (*terms, *inside)}


def _seconds(terms: Mapping[choices.Key, float], constants: Constants) -> float:
    return sum(constants.get(name, {}).get(term, 0.0) * amount for (name, term), amount in terms.items())


def constants_of(
    measurements: Sequence[Measurement], dtype: str, before: Constants | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Fit all algorithms to the times of a dtype, beside the constants of an earlier calibration, if any.

    Returns
    -------
    constants, quality
        Of each algorithm, by name: its constants; the number of times, and the median factor by which the model is off.
    """
    samples: dict[str, list[Sample]] = defaultdict(list)
    for measurement in measurements:
        for each in measurement.timings:
            algorithm = REGISTRY.get(each.algorithm)
            if algorithm is not None and each.measured is not None and _able(algorithm, measurement.problem):
                samples[algorithm.name].append(Sample(measurement.problem, each.measured, each.inner))
    slower = _slower(samples, before or {})
    constants: dict[str, dict[str, float]] = {}
    # Those that run others inside come last.
    for algorithm in sorted(REGISTRY.values(), key=lambda a: a.inner is not None):
        name = algorithm.name
        scaled = {term: slower * seconds for term, seconds in (before or {}).get(name, {}).items()}
        constants[name] = fit(samples[name], algorithm, constants, scaled) if samples[name] else scaled
    constants = _bent(constants, samples)
    quality: dict[str, Any] = {}
    for name in REGISTRY:
        modelled = [_seconds(_terms(REGISTRY[name], sample.problem, constants), constants) for sample in samples[name]]
        off = [abs(float(np.log(t / sample.seconds))) for t, sample in zip(modelled, samples[name], strict=True)]
        quality[name] = {"times": len(off), "median_factor": float(np.exp(np.median(off))) if off else None}
        if off:
            typically = f"typically off by {quality[name]['median_factor']:.2f}"
            print(f"{name:10} {dtype:10} {len(off):4} times, {typically}")
    return constants, quality


def _bent(constants: Constants, samples: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, float]]:
    """Return the constants that make the choices among the algorithms better, with three digits."""
    problems: dict[Problem, dict[str, tuple[float, dict[choices.Key, float]]]] = defaultdict(dict)
    for name, some in samples.items():
        for sample in some:
            terms = _terms(REGISTRY[name], sample.problem, constants)
            problems[sample.problem][name] = sample.seconds, terms
    flat = {(name, term): c for name, terms in constants.items() for term, c in terms.items()}
    flat = choices.bend(flat, list(problems.values()))
    return {name: {term: float(f"{flat[name, term]:.3g}") for term in terms} for name, terms in constants.items()}


def _slower(samples: Mapping[str, Sequence[Sample]], before: Constants) -> float:
    """Return how many times slower this machine is than the one of an earlier calibration, typically."""
    ratios = [
        sample.seconds / _seconds(_terms(REGISTRY[name], sample.problem, before), before)
        for name, some in samples.items()
        if before.get(name) and REGISTRY[name].inner is None
        for sample in some
    ]
    return float(np.median(ratios)) if ratios else 1.0


def calibrate(count: int, seed: int, path: Path, before: Path | None = None) -> dict[str, Any]:
    """Time `count` more problems of each dtype, and fit all algorithms to all times in the file of this setting.

    Beside constants of an earlier calibration, if there is a file of them.

    Returns
    -------
    dict
        What the planner reads, and where it came from.
    """
    setting = setting_of(jax.devices("cpu")[0])
    with jax.enable_x64(True):
        for number, dtype in enumerate(DTYPES if count else ()):
            measurements = measure(count, dtype, seed * len(DTYPES) + number, setting)
            while batch := list(itertools.islice(measurements, BATCH)):
                _store.save(path, batch)
                jax.clear_caches()
        measured = _store.load(path, setting)
        known = json.loads(before.read_text())["seconds"] if before and before.is_file() else {}
        fitted = {}
        for dtype in DTYPES:
            earlier = {name: by_dtype.get(dtype, {}) for name, by_dtype in known.items()}
            fitted[dtype] = constants_of([m for m in measured if m.problem.dtype == dtype], dtype, earlier)
    return {
        "measured": {
            "date": dt.date.today().isoformat(),
            "processor": machine.processor(),
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        "quality": {name: {dtype: fitted[dtype][1][name] for dtype in DTYPES} for name in REGISTRY},
        "seconds": {name: {dtype: fitted[dtype][0][name] for dtype in DTYPES} for name in REGISTRY},
    }


def write(path: Path, data: dict[str, Any]) -> None:
    """Write the constants to a file."""
    path.write_text(json.dumps(data, indent=2) + "\n")
