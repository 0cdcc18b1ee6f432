"""The definition of convolution in plain NumPy loops: what the library is tested against.

Nothing here uses JAX, SciPy, an FFT or anything of the library, and there is only one idea: the *terms* of a
convolution are the triples (output index m, tap k, input index q) whose product ``w[k] * x[q]`` is part of ``y[m]``::

    correlation:   y[m] = sum_k w[k] xp[m * stride + k * rhs_dilation]
    convolution:   the same with w reversed on every spatial axis,

where ``xp`` is ``x`` with ``lhs_dilation - 1`` zeros between samples, then padded by (lo, hi), where
negative amounts crop.
Value and both adjoints are sums over the same terms of the trilinear form ``sum ct[m] w[k] x[q]``.

Real and complex results are accumulated in double precision. Integers are accumulated modulo 2**64, which is a ring
homomorphism onto every narrower integer type, hence exact after wrapping.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Everything but the operands: one entry per spatial axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    convention: str = "correlation"


def dilated_length(length: int, dilation: int) -> int:
    """Length of ``length`` samples with ``dilation - 1`` zeros between neighbours."""
    return 0 if length == 0 else (length - 1) * dilation + 1


def output_shape(space: tuple[int, ...], taps: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    """Number of positions, per axis, at which the dilated kernel lies within the padded input."""
    shape = []
    for axis, (length, size) in enumerate(zip(space, taps, strict=True)):
        lo, hi = geometry.padding[axis]
        padded = lo + dilated_length(length, geometry.lhs_dilation[axis]) + hi
        free = padded - dilated_length(size, geometry.rhs_dilation[axis])
        shape.append(free // geometry.strides[axis] + 1 if free >= 0 else 0)
    return tuple(shape)


def terms(
    space: tuple[int, ...], taps: tuple[int, ...], geometry: Geometry
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Yield every (output index m, tap k, input index q) such that ``y[m]`` contains ``w[k] * x[q]``."""
    per_axis = []
    for axis, (length, size) in enumerate(zip(space, taps, strict=True)):
        outputs = output_shape((length,), (size,), _one_axis(geometry, axis))[0]
        found = []
        for m in range(outputs):
            for j in range(size):
                position = m * geometry.strides[axis] + j * geometry.rhs_dilation[axis] - geometry.padding[axis][0]
                q, inserted = divmod(position, geometry.lhs_dilation[axis])
                if inserted == 0 and 0 <= q < length:
                    k = j if geometry.convention == "correlation" else size - 1 - j
                    found.append((m, k, q))
        per_axis.append(found)
    for combination in itertools.product(*per_axis):
        m, k, q = zip(*combination, strict=True) if combination else ((), (), ())
        yield tuple(m), tuple(k), tuple(q)


def conv(x: np.ndarray, w: np.ndarray, geometry: Geometry) -> np.ndarray:
    """``y[g, n, o, *M]`` from ``x[g, n, c, *S]`` and ``w[g, o, c, *K]``."""
    x, w = _widen(x), _widen(w)
    shape = output_shape(x.shape[3:], w.shape[3:], geometry)
    y = np.zeros((x.shape[0], x.shape[1], w.shape[1], *shape), np.result_type(x, w))
    for m, k, q in terms(x.shape[3:], w.shape[3:], geometry):
        y[(..., *m)] += np.einsum("gnc,goc->gno", x[(..., *q)], w[(..., *k)])
    return y


def input_adjoint(ct: np.ndarray, w: np.ndarray, x_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """The transpose (no conjugation) of ``x -> conv(x, w)`` applied to ``ct[g, n, o, *M]``."""
    ct, w = _widen(ct), _widen(w)
    dx = np.zeros(x_shape, np.result_type(ct, w))
    for m, k, q in terms(x_shape[3:], w.shape[3:], geometry):
        dx[(..., *q)] += np.einsum("gno,goc->gnc", ct[(..., *m)], w[(..., *k)])
    return dx


def kernel_adjoint(ct: np.ndarray, x: np.ndarray, w_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """The transpose (no conjugation) of ``w -> conv(x, w)`` applied to ``ct[g, n, o, *M]``."""
    ct, x = _widen(ct), _widen(x)
    dw = np.zeros(w_shape, np.result_type(ct, x))
    for m, k, q in terms(x.shape[3:], w_shape[3:], geometry):
        dw[(..., *k)] += np.einsum("gno,gnc->goc", ct[(..., *m)], x[(..., *q)])
    return dw


def input_matrix(w: np.ndarray, x_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """The dense matrix of ``x -> conv(x, w)``, one column per entry of ``x``."""
    return _matrix(lambda unit: conv(unit, w, geometry), x_shape, w.dtype)


def kernel_matrix(x: np.ndarray, w_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """The dense matrix of ``w -> conv(x, w)``, one column per entry of ``w``."""
    return _matrix(lambda unit: conv(x, unit, geometry), w_shape, x.dtype)


def _matrix(function, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    columns = []
    for index in np.ndindex(*shape):
        unit = np.zeros(shape, dtype)
        unit[index] = 1
        columns.append(function(unit).ravel())
    return np.stack(columns, axis=1)


def _one_axis(geometry: Geometry, axis: int) -> Geometry:
    return Geometry(
        strides=(geometry.strides[axis],),
        padding=(geometry.padding[axis],),
        lhs_dilation=(geometry.lhs_dilation[axis],),
        rhs_dilation=(geometry.rhs_dilation[axis],),
        convention=geometry.convention,
    )


def _widen(array: np.ndarray) -> np.ndarray:
    """To complex128, float64 or int64 (unsigned 64-bit values wrap, as everything integer does here)."""
    array = np.asarray(array)
    if np.issubdtype(array.dtype, np.complexfloating):
        return array.astype(np.complex128)
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64)
    return array.astype(np.float64)
