"""The oracle itself: against `jax.lax`, NumPy and SciPy, and its adjoints against dense matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from . import oracle
from .cases import CASES, CONVENTIONS, LIVE_CORE, Case, operands, random


def lax_conv(x: np.ndarray, w: np.ndarray, case: Case) -> np.ndarray:
    """`jax.lax`'s correlation in float64, the groups folded into the channels."""
    (g, n, c, *space), (_, o, _, *taps) = x.shape, w.shape
    y = jax.lax.conv_general_dilated(
        np.moveaxis(x, 0, 1).reshape(n, g * c, *space),
        w.reshape(g * o, c, *taps),
        window_strides=case.strides,
        padding=case.padding,
        lhs_dilation=case.lhs_dilation,
        rhs_dilation=case.rhs_dilation,
        feature_group_count=g,
        precision="highest",
    )
    return jnp.moveaxis(y.reshape(n, g, o, *y.shape[2:]), 1, 0)


@pytest.mark.parametrize("case", [case for case in CASES if case.g], ids=str)
def test_value_is_that_of_lax(case):
    x, w = operands(case, "float64")
    y = oracle.conv(x, w, case.geometry())
    assert case.vanishes or np.any(y != 0)
    assert y.shape == jax.eval_shape(lambda x, w: lax_conv(x, w, case), x, w).shape
    if w.size:  # XLA refuses to lower a kernel without taps
        np.testing.assert_allclose(y, lax_conv(x, w, case), rtol=0, atol=1e-13)
    reverse = (..., *(slice(None, None, -1),) * len(case.space))
    np.testing.assert_allclose(oracle.conv(x, w[reverse], case.geometry("convolution")), y, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_value_is_that_of_numpy(size):
    signal, kernel = random((9,), "complex128", "signal"), random((size,), "complex128", "kernel")
    full = ((size - 1, size - 1),)
    x, w = signal[None, None, None], kernel[None, None, None]
    convolution = oracle.conv(x, w, oracle.Geometry((1,), full, (1,), (1,), "convolution"))
    np.testing.assert_allclose(convolution[0, 0, 0], np.convolve(signal, kernel), rtol=1e-13)
    correlation = oracle.conv(x, w.conj(), oracle.Geometry((1,), full, (1,), (1,), "correlation"))
    np.testing.assert_allclose(correlation[0, 0, 0], np.correlate(signal, kernel, "full"), rtol=1e-13)


def test_value_is_that_of_scipy():
    image, kernel = random((6, 7), "int32", "image"), random((3, 2), "int32", "kernel")
    x, w = image[None, None, None], kernel[None, None, None]
    geometry = oracle.Geometry((1, 1), ((2, 2), (1, 1)), (1, 1), (1, 1), "convolution")
    expected = scipy.signal.convolve(image.astype(np.int64), kernel.astype(np.int64), method="direct")
    np.testing.assert_array_equal(oracle.conv(x, w, geometry)[0, 0, 0], expected)


def test_integers_are_exact_modulo_their_range():
    x = np.full((1, 1, 1, 3), 2**62 + 1)
    w = np.full((1, 1, 1, 3), 3)
    y = oracle.conv(x, w, oracle.Geometry((1,), ((0, 0),), (1,), (1,)))
    assert int(y[0, 0, 0, 0]) % 2**64 == (9 * (2**62 + 1)) % 2**64


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("case", [case for case in LIVE_CORE if np.prod(case.x_shape) < 200], ids=str)
def test_adjoints_are_transposed_matrices(case, convention):
    x, w = operands(case, "complex128")
    ct = random(case.y_shape, "complex128", "ct")
    geometry = case.geometry(convention)
    by_matrix = oracle.input_matrix(w, x.shape, geometry).T @ ct.ravel()
    np.testing.assert_allclose(oracle.input_adjoint(ct, w, x.shape, geometry).ravel(), by_matrix, rtol=0, atol=1e-12)
    by_matrix = oracle.kernel_matrix(x, w.shape, geometry).T @ ct.ravel()
    np.testing.assert_allclose(oracle.kernel_adjoint(ct, x, w.shape, geometry).ravel(), by_matrix, rtol=0, atol=1e-12)
