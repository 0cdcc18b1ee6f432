"""Errors of every algorithm where quiet stretches of a signal stand beside loud ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

import jaxconv
from experiments import data
from experiments.core import Context
from experiments.fourier_plans import able, transforms
from jaxconv import signal

DTYPES = ("float32", "float64")
SIGNALS = ("noise", "lines of photographs")
LENGTH, LOUD, TAPS = 8192, 1024, 64
FAR = 4096  # the results from here on are farther from the loud part than a stretch of overlap-save is long
BEYOND = 8  # the last dynamic range is 2^BEYOND times the reciprocal of the unit roundoff


class Exact(NamedTuple):
    """Signals [s, n] at equal loudness, a filter, and its exact correlation with them, [s, m], rounded once.

    `magnitudes` is that of their absolute values. Results that mix loud and quiet samples are left out of all measures.
    """

    signals: np.ndarray
    taps: np.ndarray
    results: np.ndarray
    magnitudes: np.ndarray


class Errors(NamedTuple):
    """Errors of one algorithm at dynamic ranges of 2 ** `exponents`.

    `quiet` and `far` [ranges, s] are relative errors in the norm, of all results of quiet samples and of those far from
    the loud part. `elementwise` and `normwise` are the largest errors over all results, [ranges, s]: of any as a
    multiple of the same computation on absolute values; of all as a multiple of that computation's norm. `course`
    [ranges, s, m] is each result's error, as a multiple of the root mean square of the exact ones of its part. `bound`
    is the error that `jaxconv.plan` states.
    """

    exponents: np.ndarray
    quiet: np.ndarray
    far: np.ndarray
    elementwise: np.ndarray
    normwise: np.ndarray
    course: np.ndarray
    bound: float
    is_transform: bool


def digits(dtype: str) -> int:
    """Return the binary digits of a significand: rounding errs by 2 ** -digits at most, relatively."""
    return int(np.finfo(dtype).nmant) + 1


def compose(context: Context) -> Exact:
    """Draw signals and a filter with 24 significant bits, so that products are exact in float64, and add exactly."""
    rng = context.rng(5)
    names = list(data.PHOTOGRAPHS)
    lines = np.stack([data.photograph(name, 128)[rng.integers(128)] for name in rng.permutation(names)])
    signals = np.stack([rng.standard_normal(LENGTH), np.resize(lines, LENGTH)]).astype(np.float32).astype(np.float64)
    taps = rng.standard_normal(TAPS).astype(np.float32).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(signals, TAPS, axis=-1)
    results = np.array([[math.fsum(products) for products in part * taps] for part in windows])
    return Exact(signals, taps, results, np.abs(windows) @ np.abs(taps))


def scales(exponent: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of all samples and results: a power of two for quiet ones, NaN for results of both kinds."""
    samples, results = np.ones(LENGTH), np.ones(LENGTH - TAPS + 1)
    samples[LOUD:], results[LOUD:] = 2.0**-exponent, 2.0**-exponent
    results[LOUD - TAPS + 1 : LOUD] = np.nan
    return samples, results


def methods(dtype: str) -> dict[str, tuple[float, bool]]:
    """Return the stated error of each method that can run this correlation, and whether it computes a transform."""
    plan = jaxconv.plan((LENGTH,), (TAPS,), mode="valid", dtype=dtype)[0]
    known = {name: (each.cost.error, transforms(each)) for name, each in able(plan.forward).items()}
    # What "direct" chooses is no transform, and the bound of every such sum is the same.
    return known | {"direct": next(each for each in known.values() if not each[1])}


def measure(exact: Exact, dtype: str, method: str, bound: float, is_transform: bool) -> Errors:
    """Compute the correlations at all dynamic ranges in one program, and compare."""
    last = digits(dtype) + BEYOND
    exponents = np.arange(last % 2, last + 1, 2)
    samples, factors = map(np.stack, zip(*(scales(int(exponent)) for exponent in exponents), strict=True))
    inputs = (samples[:, None] * exact.signals).astype(dtype)
    correlate = partial(signal.correlate, mode="valid", method=method)
    found = jax.jit(jax.vmap(jax.vmap(correlate, (0, None)), (0, None)))(inputs, exact.taps.astype(dtype))
    expected = factors[:, None] * exact.results
    gaps = np.abs(np.asarray(found, np.float64) - expected)
    known = np.isfinite(factors[0])
    magnitudes = factors[:, None] * exact.magnitudes

    def norm(values: np.ndarray) -> np.ndarray:
        # Of all results, or of the last ones.
        return np.linalg.norm(values[..., known[-values.shape[-1] :]], axis=-1)

    loud = np.sqrt(np.mean(expected[..., : LOUD - TAPS + 1] ** 2, -1))
    quiet = np.sqrt(np.mean(expected[..., LOUD:] ** 2, -1))
    size = np.where(np.arange(gaps.shape[-1]) < LOUD, loud[..., None], quiet[..., None])
    return Errors(
        exponents,
        norm(gaps[..., LOUD:]) / norm(expected[..., LOUD:]),
        norm(gaps[..., FAR:]) / norm(expected[..., FAR:]),
        np.max((gaps / magnitudes)[..., known], -1),
        norm(gaps) / norm(magnitudes),
        gaps / size,
        bound,
        is_transform,
    )


def study(context: Context, tick: Callable[[], object]) -> dict[tuple[str, str], Errors]:
    """Measure every algorithm in every precision, and what `method="direct"` chooses, by (dtype, method)."""
    exact, found = compose(context), {}
    with jax.enable_x64(True):
        for dtype in DTYPES:
            for method, (bound, is_transform) in methods(dtype).items():
                found[dtype, method] = measure(exact, dtype, method, bound, is_transform)
                tick()
    return found


def slope(errors: Errors, dtype: str) -> np.ndarray:
    """Return the slopes of log(error) against log(dynamic range), [s], up to 2^4 below the reciprocal roundoff."""
    part = (errors.exponents >= 4) & (errors.exponents <= digits(dtype) - 4)
    return np.polyfit(errors.exponents[part], np.log2(errors.quiet[part]), 1)[0]
