"""The convolution theorem, measured: spectra of results against products of spectra, none of them by an FFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from experiments import data
from experiments.algebra import asymmetric, normal, residual
from experiments.core import Context
from jaxconv import signal

DTYPES = ("float32", "float64", "complex64", "complex128")
SHAPES = {1: (48, 17), 2: (16, 5), 3: (8, 3)}  # sides of signal and filter, by the number of dimensions
PHOTOGRAPHS = ("astronaut", "coins", "gravel")
FREQUENCIES = 24

# The forms of the theorem. The first two groups hold, REAL for real filters only, the last two never.
SPECTRA = ("convolution", "correlation", "correlation, conjugated")
TRANSFORMS = ("zeros appended", "the library’s FFT")
REAL = ("conjugate of the spectrum",)
EXCHANGED = ("convolution, W(−ω)", "correlation, W(ω)")
WRAPPED = ("no zeros appended",)


class Case(NamedTuple):
    name: str
    x: np.ndarray
    w: np.ndarray

    @property
    def is_complex(self) -> bool:
        return np.iscomplexobj(self.x)

    @property
    def epsilon(self) -> float:
        return float(np.finfo(self.x.dtype).eps)


def draw(context: Context, repeats: int) -> Iterator[Case]:
    """Yield random signals and filters of every rank and dtype, then pieces of whitened photographs."""
    for dimensions, (side, width) in SHAPES.items():
        # A quick run spends its time on compilation; it has half of the dtypes for each rank.
        for number, dtype in enumerate(DTYPES[dimensions % 2 :: 2] if context.quick else DTYPES):
            rng = context.rng(0, dimensions, number)
            for repeat in range(repeats):
                x = normal(rng, dtype, (side,) * dimensions)
                w = asymmetric(rng, dtype, (width,) * dimensions)
                yield Case(f"{dimensions}-D {dtype} {repeat + 1}", x, w)
    rng = context.rng(1)
    for name in PHOTOGRAPHS:
        picture = data.photograph(name, SHAPES[1][0] + 8)
        picture = data.filtered(picture - picture.mean(), data.whitening_filter(picture - picture.mean(), 9))
        for dtype in DTYPES[: 1 if context.quick else 2]:
            line, square = picture[SHAPES[1][0] // 2], picture[: SHAPES[2][0], : SHAPES[2][0]]
            for label, x in ((f"line of {name}", line), (name, square)):
                w = asymmetric(rng, dtype, (SHAPES[x.ndim][1],) * x.ndim)
                yield Case(f"{label}, {dtype}", x.astype(dtype), w)


def spectrum(array: np.ndarray, frequencies: np.ndarray, first: int = 0) -> np.ndarray:
    """Return the transform at any frequencies [f, axes], in radians a sample: the sum of its definition.

    The samples stand at `first`, `first` + 1, ... on every axis.
    """
    values = np.asarray(array, np.complex128)[None]
    for axis in range(array.ndim):
        waves = np.exp(-1j * np.outer(frequencies[:, axis], first + np.arange(array.shape[axis])))
        # Each step sums one axis away, the first that is left.
        values = np.einsum("fn...,fn->f...", np.broadcast_to(values, (len(waves), *values.shape[1:])), waves)
    return values


def product(x: np.ndarray, w: np.ndarray, length: int) -> np.ndarray:
    """Convolve by NumPy's transforms of a given length on every axis: what the theorem makes of a program."""
    sizes, axes = (length,) * x.ndim, tuple(range(x.ndim))
    return np.fft.ifftn(np.fft.fftn(x, sizes, axes) * np.fft.fftn(w, sizes, axes), axes=axes)


def laws(case: Case, rng: np.random.Generator) -> dict[str, float]:
    """Return the relative residual of every form of the theorem; only `TRANSFORMS` and `WRAPPED` compute an FFT."""
    _, x, w = case
    full = x.shape[0] + w.shape[0] - 1
    lag = 1 - w.shape[0]  # of a correlation's first result
    frequencies = rng.uniform(-np.pi, np.pi, (FREQUENCIES, x.ndim))
    convolved = np.asarray(signal.convolve(x, w, method="direct"))
    correlated = np.asarray(signal.correlate(x, w.conj(), method="direct"))  # conjugated twice: as a layer computes it
    conjugated = np.asarray(signal.correlate(x, w, method="direct"))
    of_x, of_w = spectrum(x, frequencies), spectrum(w, frequencies)
    negated = spectrum(w, -frequencies)
    padded = product(x, w, full)
    # With a transform as long as the signal, what is beyond its end is added at its beginning.
    wrapped = np.zeros_like(padded)
    wrapped[tuple(map(slice, x.shape))] = product(x, w, x.shape[0])
    return {
        "convolution": residual(spectrum(convolved, frequencies), of_x * of_w),
        "correlation": residual(spectrum(correlated, frequencies, lag), of_x * negated),
        "correlation, conjugated": residual(spectrum(conjugated, frequencies, lag), of_x * of_w.conj()),
        "zeros appended": residual(convolved, padded),
        "the library’s FFT": max(
            residual(signal.convolve(x, w, method="fft"), convolved),
            residual(signal.correlate(x, w, method="fft"), conjugated),
        ),
        "conjugate of the spectrum": residual(spectrum(correlated, frequencies, lag), of_x * of_w.conj()),
        "convolution, W(−ω)": residual(spectrum(convolved, frequencies), of_x * negated),
        "correlation, W(ω)": residual(spectrum(correlated, frequencies, lag), of_x * of_w),
        "no zeros appended": residual(convolved, wrapped),
    }


def measure(context: Context, cases: list[Case], tick: Callable[[], object]) -> dict[str, np.ndarray]:
    """Return the residuals of all cases, by law."""
    rng, rows = context.rng(2), []
    with jax.enable_x64(True):
        for case in cases:
            rows.append(laws(case, rng))
            tick()
    return {law: np.array([row[law] for row in rows]) for law in rows[0]}
