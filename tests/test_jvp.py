"""Forward mode: exact tangents (the primitive is bilinear), alone and over reverse mode."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv._ops import conv

from . import oracle
from .cases import BY_NAME, CONVENTIONS, FEW, LIVE_CORE, operands, random
from .methods import may_use_fft, parameters
from .tolerances import assert_close, bound, check, exact


def tangents(case, dtype):
    return random(case.x_shape, dtype, "tangent of x"), random(case.w_shape, dtype, "tangent of w")


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    [
        *parameters(FEW, ("float32",), limit=2),
        *parameters(FEW, ("complex128", "bfloat16"), limit=1),
        *parameters((BY_NAME["empty-channels"],), ("float32",), ("auto",)),
    ],
)
def test_jvp(case, dtype, method):
    """The tangent of w * x is w * dx + dw * x; each half alone where only one operand is differentiated."""
    (x, w), (dx, dw) = operands(case, dtype), tangents(case, dtype)
    fft = may_use_fft(method)

    @jax.jit
    def run(x, w, dx, dw):
        results = []
        for convention in CONVENTIONS:
            function = functools.partial(conv, **case.options, convention=convention, method=method)
            value, both = jax.jvp(function, (x, w), (dx, dw))
            in_x = jax.jvp(lambda x, f=function: f(x, w), (x,), (dx,))[1]
            in_w = jax.jvp(lambda w, f=function: f(x, w), (w,), (dw,))[1]
            results.append((value, both, in_x, in_w))
        return results

    for convention, (value, both, in_x, in_w) in zip(CONVENTIONS, run(x, w, dx, dw), strict=True):
        check("value", value, x, w, case, convention, dtype, fft=fft)
        check("value", in_x, dx, w, case, convention, dtype, fft=fft)
        check("value", in_w, x, dw, case, convention, dtype, fft=fft)
        halves = [(dx, w), (x, dw)]
        expected = [exact("value", a, b, case, convention) for a, b in halves]
        allowed = [bound("value", a, b, case, convention, dtype, fft) for a, b in halves]
        # Each half is rounded before they are added.
        rounding = np.finfo(np.float32).eps if dtype == "float32" else float(jnp.finfo(dtype).eps)
        assert_close(both, sum(expected), sum(allowed) + rounding * sum(map(np.abs, expected)), dtype)


@pytest.mark.parametrize(
    ("case", "dtype", "method"), parameters(LIVE_CORE, ("float64",), ("auto",)) + parameters(FEW, ("float64",), limit=1)
)
def test_forward_over_reverse(case, dtype, method):
    """The derivative of dx(ct, w) along dw is dx(ct, dw), and that of dw(ct, x) along dx is dw(ct, dx)."""
    (x, w), (dx, dw) = operands(case, dtype), tangents(case, dtype)
    ct = random(case.y_shape, dtype, "ct")

    @jax.jit
    def run(x, w, dx, dw):
        results = []
        for convention in CONVENTIONS:

            def loss(x, w, convention=convention):
                return jnp.sum(ct * conv(x, w, **case.options, convention=convention, method=method))

            results.append(jax.jvp(jax.grad(loss, (0, 1)), (x, w), (dx, dw))[1])
        return results

    for convention, (change_x, change_w) in zip(CONVENTIONS, run(x, w, dx, dw), strict=True):
        check("input", change_x, ct, dw, case, convention, dtype, fft=may_use_fft(method))
        check("kernel", change_w, ct, dx, case, convention, dtype, fft=may_use_fft(method))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_jacobians_are_the_matrices(jacobian, convention):
    case = BY_NAME["2d-everything"]
    x, w = operands(case, "float64")
    function = functools.partial(conv, **case.options, convention=convention)
    geometry = case.geometry(convention)
    for argument, matrix in enumerate(
        (oracle.input_matrix(w, x.shape, geometry), oracle.kernel_matrix(x, w.shape, geometry))
    ):
        assert np.any(matrix != 0)
        actual = jax.jit(jacobian(function, argument))(x, w)
        np.testing.assert_allclose(np.reshape(actual, matrix.shape), matrix, rtol=0, atol=1e-13)


def test_linearize():
    case = BY_NAME["1d-everything"]
    (x, w), (dx, dw) = operands(case, "float64"), tangents(case, "float64")
    value, push = jax.linearize(functools.partial(conv, **case.options), x, w)
    check("value", value, x, w, case, "correlation", "float64", fft=True)
    expected = exact("value", dx, w, case, "correlation") + exact("value", x, dw, case, "correlation")
    np.testing.assert_allclose(push(dx, dw), expected, rtol=0, atol=1e-13)


def test_third_derivative_vanishes():
    """Bilinear in (x, w): the second derivative is constant, the third is zero."""
    case = BY_NAME["1d-channels"]
    (x, w), (dx, dw) = operands(case, "float64"), tangents(case, "float64")

    def along(t):
        return conv(x + t * dx, w + t * dw, **case.options)

    @jax.jit
    def derivatives(t):
        second = jax.jacfwd(jax.jacfwd(along))
        return second(t), jax.jacfwd(second)(t)

    second, third = derivatives(0.5)
    np.testing.assert_allclose(second, 2 * exact("value", dx, dw, case, "correlation"), atol=1e-12)
    np.testing.assert_allclose(third, 0, atol=1e-12)
