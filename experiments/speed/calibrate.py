"""Fit the constants of the planner's cost model to measured times.

For each algorithm and dtype the model is a sum of terms (see `jaxconv._cost.Cost`) times non-negative constants, fitted
to the logarithm of the times on random problems, so that a factor of two counts the same everywhere.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.optimize import least_squares
from tqdm import tqdm

from experiments.speed import machine, problems, timing
from jaxconv import _cost
from jaxconv._algorithms import REGISTRY, Algorithm
from jaxconv._measure import convolve_stored, stored_shapes
from jaxconv._spec import Problem

# Half precision and integers take the constants of the float of the same speed class (see `jaxconv._cost`).
DTYPES = ("float32", "float64", "complex64")
SLOWEST = 1.0
FEWEST = 16
# A row of a batch that the model does not describe (another process, a page fault) must not bend the fit.
OUTLIER = 0.3
# Bounds of the logarithm of a constant, in seconds: a term that plays no part ends at the lower one.
LOGARITHMS = (-36.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measured time, in seconds."""

    algorithm: str
    problem: Problem
    seconds: float


def measure(count: int, dtype: str, seed: int, algorithms: Sequence[Algorithm], budget: float = 0.05) -> list[Sample]:
    """Time algorithms on `count` random problems, and rare ones on as many more as give them `FEWEST` samples."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    with tqdm(total=count, desc=dtype, unit="problem") as bar:
        for problem in itertools.islice(problems.draw(rng, np.dtype(dtype)), count):
            samples += _measure_problem(rng, problem, algorithms, budget)
            bar.update()
        for problem in problems.draw(rng, np.dtype(dtype)):
            taken = Counter(sample.algorithm for sample in samples)
            rare = [a for a in algorithms if taken[a.name] < FEWEST]
            if not rare:
                return samples
            samples += _measure_problem(rng, problem, rare, budget)
    return samples


def _measure_problem(
    rng: np.random.Generator, problem: Problem, algorithms: Sequence[Algorithm], budget: float
) -> list[Sample]:
    dtype = problem.dtype
    algorithms = [a for a in algorithms if a.supports(problem) is None]
    algorithms = [a for a in algorithms if _cost.seconds(a.cost(problem), a.name, "cpu", dtype) <= SLOWEST]
    if not algorithms:
        return []
    operands = [_data(rng, shape, dtype) for shape in stored_shapes(problem)]
    samples = []
    for algorithm in algorithms:
        fn = jax.jit(functools.partial(convolve_stored, problem=problems.with_method(problem, algorithm.name)))
        samples.append(Sample(algorithm.name, problem, timing.seconds_a_call(fn, operands, budget)))
    return samples


def _data(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    values = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * rng.standard_normal(shape)
    return jax.numpy.asarray(values.astype(dtype))


def fit(samples: list[Sample], algorithm: Algorithm) -> tuple[dict[str, float], float]:
    """Return the constants, in seconds per unit of each term, and the median factor by which the model is off."""
    rows = [algorithm.cost(sample.problem).terms for sample in samples]
    times = np.array([sample.seconds for sample in samples])
    names = list(dict.fromkeys(name for row in rows for name, amount in row.items() if amount))
    terms = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    # Every term starts with an equal share of the time of the problems that have it.
    with np.errstate(divide="ignore"):
        start = [np.log(np.median((times / column)[column > 0]) / len(names)) for column in terms.T]

    def residual(parameters: np.ndarray) -> np.ndarray:
        return np.log(terms @ np.exp(parameters)) - np.log(times)

    best = least_squares(residual, np.clip(start, *LOGARITHMS), bounds=LOGARITHMS, loss="soft_l1", f_scale=OUTLIER)
    constants = {name: float(f"{value:.3g}") for name, value in zip(names, np.exp(best.x), strict=True)}
    return constants, float(np.exp(np.median(np.abs(residual(best.x)))))


def calibrate(count: int = 200, seed: int = 0, names: Sequence[str] = ()) -> dict[str, Any]:
    """Measure and fit all algorithms, or those named; return what the planner reads of them."""
    measured = [a for a in REGISTRY.values() if a.inner is None and a.name in (names or REGISTRY)]
    constants: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    errors: dict[str, dict[str, float]] = defaultdict(dict)
    with jax.enable_x64(True):
        for number, dtype in enumerate(DTYPES):
            samples = measure(count, dtype, seed * len(DTYPES) + number, measured)
            for algorithm in measured:
                name = algorithm.name
                mine = [sample for sample in samples if sample.algorithm == name]
                constants[name][dtype], errors[name][dtype] = fit(mine, algorithm)
                print(f"{name:10} {dtype:10} {len(mine):4} samples, typically off by {errors[name][dtype]:.2f}")
            if names:
                continue
            for name, algorithm in REGISTRY.items():
                if algorithm.inner is not None:
                    # It only moves data, as the slowest of the fitted ones does that.
                    constants[name][dtype] = {
                        "bytes": max(c[dtype].get("bytes", 0.0) for c in constants.values() if dtype in c)
                    }
    provenance = {
        "date": dt.date.today().isoformat(),
        "processor": machine.processor(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "problems": count,
        "seed": seed,
    }
    return {
        "measured": {algorithm.name: provenance for algorithm in measured},
        "median_factor": errors,
        "seconds": constants,
    }


def write(path: Path, data: dict[str, Any]) -> None:
    """Write the constants to a file; those that it has of other algorithms remain."""
    old = json.loads(path.read_text()) if path.is_file() else {}
    merged = {key: old.get(key, {}) | new for key, new in data.items()}
    path.write_text(json.dumps(merged, indent=2) + "\n")
