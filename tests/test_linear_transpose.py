"""`jax.linear_transpose` in either operand, and back again."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from jaxconv._ops import conv

from .cases import BY_NAME, CONVENTIONS, FEW, operands, random
from .methods import may_use_fft, parameters
from .tolerances import check


def transpose(function, argument):
    return lambda ct: jax.linear_transpose(function, argument)(ct)[0]


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    [
        *parameters(FEW, ("float64",), limit=1),
        *parameters([BY_NAME[name] for name in ("0d", "2d-channels", "empty-channels")], ("float64",), ("auto",)),
    ],
)
def test_transpose_and_its_transpose(case, dtype, method):
    x, w = operands(case, dtype)
    ct = random(case.y_shape, dtype, "ct")
    fft = may_use_fft(method)

    @jax.jit
    def run(x, w, ct):
        results = []
        for convention in CONVENTIONS:
            forward = functools.partial(conv, **case.options, convention=convention, method=method)
            in_x = transpose(lambda x, f=forward: f(x, w), x)
            in_w = transpose(lambda w, f=forward: f(x, w), w)
            results.append((in_x(ct), in_w(ct), transpose(in_x, ct)(x), transpose(in_w, ct)(w)))
        return results

    for convention, (dx, dw, *back) in zip(CONVENTIONS, run(x, w, ct), strict=True):
        check("input", dx, ct, w, case, convention, dtype, fft=fft)
        check("kernel", dw, ct, x, case, convention, dtype, fft=fft)
        for y in back:
            check("value", y, x, w, case, convention, dtype, fft=fft)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_transposes_stay_in_the_primitive(convention):
    """Closed under transposition: one equation of the same primitive, and in x the other convention."""
    case = BY_NAME["2d-everything"]
    x, w = operands(case, "float64")
    ct = random(case.y_shape, "float64", "ct")
    forward = functools.partial(conv, **case.options, convention=convention)
    in_x = jax.make_jaxpr(transpose(lambda x: forward(x, w), x))(ct)
    in_w = jax.make_jaxpr(transpose(lambda w: forward(x, w), w))(ct)
    name = jax.make_jaxpr(forward)(x, w).eqns[-1].primitive.name
    (in_x,), (in_w,) = ([e for e in j.eqns if e.primitive.name == name] for j in (in_x, in_w))
    assert in_x.params["spec"].convention != convention
    assert in_w.params["spec"].convention == "correlation"


def test_transpose_under_vmap():
    case = BY_NAME["1d-everything"]
    x, w = operands(case, "float64")
    cts = random((3, *case.y_shape), "float64", "ct")
    dxs = jax.vmap(transpose(lambda x: conv(x, w, **case.options), x))(cts)
    dws = jax.vmap(transpose(lambda w: conv(x, w, **case.options), w))(cts)
    for dx, dw, ct in zip(dxs, dws, cts, strict=True):
        check("input", dx, ct, w, case, "correlation", "float64", fft=True)
        check("kernel", dw, ct, x, case, "correlation", "float64", fft=True)


def test_adjoint_of_the_adjoint_keeps_the_spec():
    """Twice transposed is the same problem, not merely an equal one: convention, strides, dilations and shapes."""
    case = BY_NAME["1d-everything"]
    x, w = operands(case, "float64")
    forward = lambda x: conv(x, w, **case.options)  # noqa: E731
    ct = np.zeros(case.y_shape)
    (once,) = [e for e in jax.make_jaxpr(forward)(x).eqns if "spec" in e.params]
    (twice,) = [e for e in jax.make_jaxpr(transpose(transpose(forward, x), ct))(x).eqns if "spec" in e.params]
    for field in ("convention", "strides", "lhs_dilation", "rhs_dilation"):
        assert getattr(once.params["spec"], field) == getattr(twice.params["spec"], field)
    # What the padding adds behind the last window is never read, and may differ.
    assert [low for low, _ in once.params["spec"].padding] == [low for low, _ in twice.params["spec"].padding]
