"""How far from the exact result an answer may be.

Tolerances are error bounds, not wishes: a sum of ``n`` products in precision ``eps`` is within
``n * eps * sum |x| |w|`` of the exact one, entry by entry; through an FFT of length ``N`` it is within a small multiple
of ``eps * log2(N) * norm(x) * norm(w)``, which is a statement on the whole output and not on its small entries (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1 and 24.1).

A result is a bilinear form of two arrays, whichever adjoint it is; ``FORMS`` names the three.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from . import oracle
from .cases import COMPLEX, INTEGERS, Case, dtype_of

# The oracle of each bilinear form, and how the norms of its two operands (one per group, n/o, c) combine.
FORMS = {
    "value": (oracle.conv, "gnc,goc->gno"),
    "input": (oracle.input_adjoint, "gno,goc->gnc"),
    "kernel": (oracle.kernel_adjoint, "gno,gnc->goc"),
}


def epsilon(dtype: str) -> float:
    """The spacing of the numbers next to 1."""
    return float(ml_dtypes.finfo(dtype_of(dtype)).eps)


def exact(form: str, a: np.ndarray, b: np.ndarray, case: Case, convention: str) -> np.ndarray:
    """The oracle's result: ``value`` of (x, w), ``input`` of (ct, w), ``kernel`` of (ct, x)."""
    function, _ = FORMS[form]
    shapes = {"value": (), "input": (case.x_shape,), "kernel": (case.w_shape,)}[form]
    return function(a, b, *shapes, case.geometry(convention))


def bound(
    form: str, a: np.ndarray, b: np.ndarray, case: Case, convention: str, dtype: str, fft: bool
) -> np.ndarray | float:
    """The largest admissible error of each entry of a result computed in ``dtype``.

    Half precision stands for its storage only: the arithmetic must be float32's. A complex product is four real ones
    and two sums, hence the factor of four.
    """
    if dtype in INTEGERS:
        return 0.0
    arithmetic = "float32" if dtype in ("float16", "bfloat16") else dtype
    eps = epsilon(arithmetic) * (4 if dtype in COMPLEX else 1)
    if not fft:
        outputs = math.prod(case.y_shape[3:])
        count = {
            "value": case.c * math.prod(case.taps),
            "input": case.o * math.prod(case.taps),
            "kernel": case.n * outputs,
        }
        return max(count[form], 1) * eps * exact(form, _abs(a), _abs(b), case, convention)
    norms = np.einsum(FORMS[form][1], _norms(a), _norms(b))
    points = math.prod(
        oracle.dilated_length(length, into) + max(lo, 0) + max(hi, 0) + oracle.dilated_length(taps, across)
        for length, taps, into, across, (lo, hi) in zip(
            case.space, case.taps, case.lhs_dilation, case.rhs_dilation, case.padding, strict=True
        )
    )
    return np.reshape(4 * eps * math.log2(max(points, 2)) * norms, (*norms.shape, *[1] * len(case.space)))


def assert_close(actual, expected: np.ndarray, allowed: np.ndarray | float, dtype: str) -> None:
    """Assert dtype, shape and error: integers equal modulo their range, others within ``allowed`` and one rounding."""
    actual = np.asarray(actual)
    assert actual.dtype == dtype_of(dtype)
    assert actual.shape == expected.shape
    if dtype in INTEGERS:
        np.testing.assert_array_equal(actual, expected.astype(actual.dtype))
        return
    wide = actual.astype(np.complex128 if dtype in COMPLEX else np.float64)
    error = np.abs(wide - expected)
    allowed = np.broadcast_to(allowed + epsilon(dtype) * np.abs(expected), error.shape)
    bad = ~(error <= allowed)  # NaN is bad
    if bad.any():
        worst = np.unravel_index(np.argmax(np.where(bad, error - allowed, -np.inf)), error.shape)
        message = (
            f"{bad.sum()} of {bad.size} entries are off, the worst at {tuple(map(int, worst))}: "
            f"got {wide[worst]}, expected {expected[worst]}, allowed error {allowed[worst]:.3g}"
        )
        raise AssertionError(message)


def check(
    form: str, actual, a: np.ndarray, b: np.ndarray, case: Case, convention: str, dtype: str, *, fft: bool
) -> None:
    """Assert that ``actual`` is the given bilinear form of ``a`` and ``b`` within its bound, and not vacuously."""
    expected = exact(form, a, b, case, convention)
    if not case.vanishes:
        assert np.any(expected != 0), "the test is vacuous: everything expected is zero"
    assert_close(actual, expected, bound(form, a, b, case, convention, dtype, fft), dtype)


def _abs(array: np.ndarray) -> np.ndarray:
    return np.abs(array.astype(np.complex128)).astype(np.float64)


def _norms(array: np.ndarray) -> np.ndarray:
    return np.sqrt((_abs(array) ** 2).sum(axis=tuple(range(3, array.ndim))))
