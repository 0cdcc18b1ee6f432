"""Fourier transforms of one or two long rows, in two steps.

XLA's FFT on CPU transforms several rows in one register and in several threads, and a single row of real data up to
seven times more slowly. So a row of ``A B`` samples is read as a matrix of A rows and B columns, ``n = B a + b``, whose
columns are transformed first and then, times what lies between the two, its rows::

    X[A l + m] = sum_b exp(-2 pi i b l / B) exp(-2 pi i b m / (A B)) sum_a exp(-2 pi i a m / A) x[B a + b]

The spectrum stays in the order [m, l], since a product of spectra may be taken in any, and of real data m ends at
``A / 2``, because ``X[-k]`` is the conjugate of ``X[k]``.

Source: J. W. Cooley and J. W. Tukey, *An algorithm for the machine calculation of complex Fourier series*, Mathematics
of Computation 19, 1965.
"""

import functools
import math

import jax
import numpy as np
from jax import numpy as jnp

from jaxconv._algorithms._transforms import flattened

# From so many points on it is faster, for at most FEW rows.
LONG = 2048
FEW = 2


def columns(length: int) -> int:
    """Return how many columns make the matrix about square: a power of two."""
    return 1 << int(math.log2(length) / 2)


def _between(rows: int, columns: int, dtype: np.dtype) -> jax.Array:
    """Return ``exp(-2 pi i b m / (A B))`` as [m, b], products from two small tables: b is a multiple and a rest."""
    step = 1 << int(math.log2(columns) / 2)

    def table(b: np.ndarray) -> np.ndarray:
        return np.exp(-2j * np.pi / (rows * columns) * np.outer(np.arange(rows // 2 + 1), b)).astype(dtype)

    multiples, rests = table(np.arange(0, columns, step)), table(np.arange(step))
    return (jnp.asarray(multiples)[:, :, None] * rests[:, None, :]).reshape(-1, columns)


def transform(array: jax.Array) -> jax.Array:
    """Transform the last axis of a real array to the last two of its spectrum, [m, l]."""
    width = columns(array.shape[-1])
    matrix = array.reshape(*array.shape[:-1], -1, width)
    partial = flattened(jnp.fft.rfftn, matrix, [-2])
    return flattened(jnp.fft.fftn, partial * _between(matrix.shape[-2], width, partial.dtype), [-1])


def inverse(spectrum: jax.Array, length: int) -> jax.Array:
    """Return the real array with so many samples of a spectrum [..., m, l]."""
    width = spectrum.shape[-1]
    partial = flattened(jnp.fft.ifftn, spectrum, [-1]) * jnp.conj(_between(length // width, width, spectrum.dtype))
    matrix = flattened(functools.partial(jnp.fft.irfftn, s=[length // width]), partial, [-2])
    return matrix.reshape(*matrix.shape[:-2], length)
