"""Identities that hold for every problem, on problems drawn at random."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxconv._algorithms import REGISTRY
from jaxconv._ops import conv

from . import oracle
from .cases import CONVENTIONS, Case, operands, random
from .methods import can, may_use_fft
from .tolerances import assert_close, bound, exact

MAX_SIZE = {0: 1, 1: 9, 2: 5, 3: 3}
# The largest integers that float64 adds and multiplies exactly here: identities hold to the last bit.
SMALL = 100


@st.composite
def cases(draw, ranks=(0, 1, 2, 3)):
    """Any geometry: empty axes, kernels longer than the input, cropping, outputs that meet only inserted zeros."""
    rank = draw(st.sampled_from(ranks))
    size = MAX_SIZE[rank]

    def per_axis(strategy):
        return draw(st.tuples(*[strategy] * rank))

    return Case(
        "drawn",
        per_axis(st.integers(0, size)),
        per_axis(st.integers(0, size)),
        per_axis(st.integers(1, 3)),
        per_axis(st.tuples(st.integers(-3, 6), st.integers(-3, 6))),
        per_axis(st.integers(1, 3)),
        per_axis(st.integers(1, 3)),
        **{axis: draw(st.integers(1, 3)) for axis in "gnco"},
        vanishes=True,
    )


@st.composite
def runs(draw, dtypes):
    """A problem, with a dtype and an algorithm that says it can, in one of the conventions."""
    case, dtype = draw(cases()), draw(st.sampled_from(dtypes))
    method = draw(st.sampled_from([name for name in REGISTRY if can(name, case, dtype)]))
    return case, dtype, method, draw(st.sampled_from(CONVENTIONS))


def assert_form(form, actual, a, b, case, convention, dtype, method):
    assert_close(
        actual,
        exact(form, a, b, case, convention),
        bound(form, a, b, case, convention, dtype, may_use_fft(method)),
        dtype,
    )


@given(runs(("float32", "float64", "complex64", "int32", "uint8", "bfloat16")))
def test_value(run):
    case, dtype, method, convention = run
    x, w = operands(case, dtype)
    y = jax.jit(functools.partial(conv, **case.options, convention=convention, method=method))(x, w)
    assert_form("value", y, x, w, case, convention, dtype, method)


@given(runs(("float32", "float64", "complex128")))
def test_adjoints(run):
    """<conv(x, w), ct> = <x, dx> = <w, dw>, entry by entry."""
    case, dtype, method, convention = run
    x, w = operands(case, dtype)
    ct = random(case.y_shape, dtype, "ct")

    @jax.jit
    def pull(x, w, ct):
        return jax.vjp(functools.partial(conv, **case.options, convention=convention, method=method), x, w)[1](ct)

    dx, dw = pull(x, w, ct)
    assert_form("input", dx, ct, w, case, convention, dtype, method)
    assert_form("kernel", dw, ct, x, case, convention, dtype, method)


@given(runs(("float64",)), st.sampled_from([(0, None), (None, 0), (0, 0)]), st.integers(1, 3))
def test_vmap(run, axes, size):
    case, dtype, method, convention = run
    operand_shapes = (case.x_shape, case.w_shape)
    arguments = [
        random(shape if axis is None else (size, *shape), dtype, "vmap")
        for shape, axis in zip(operand_shapes, axes, strict=True)
    ]
    function = functools.partial(conv, **case.options, convention=convention, method=method)
    results = jax.jit(jax.vmap(function, axes))(*arguments)
    for i, y in enumerate(results):
        x, w = (a if axis is None else a[i] for a, axis in zip(arguments, axes, strict=True))
        assert_form("value", y, x, w, case, convention, dtype, method)


def integers(shape, seed):
    """Small whole numbers in float64, for which direct sums are exact."""
    return np.round(SMALL * random(shape, "float64", seed))


@given(cases())
def test_convolution_is_correlation_with_the_flipped_kernel(case):
    x, w = integers(case.x_shape, "x"), integers(case.w_shape, "w")
    axes = tuple(range(3, w.ndim))

    @jax.jit
    def both(x, w):
        function = functools.partial(conv, **case.options, method="direct")
        return function(x, w, convention="convolution"), function(x, jnp.flip(w, axes), convention="correlation")

    np.testing.assert_array_equal(*both(x, w))


def full(x, w):
    """The full convolution of single-channel arrays."""
    pads = tuple((size - 1, size - 1) for size in w.shape[3:])
    return conv(x, w, padding=pads, convention="convolution", method="direct")


shapes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=5)
@given(shapes, shapes, shapes)
def test_convolution_commutes_and_associates(a_shape, b_shape, c_shape):
    a, b, c = (integers((1, 1, 1, *s), name) for s, name in zip((a_shape, b_shape, c_shape), "abc", strict=True))
    ab, ba, left, right = jax.jit(lambda a, b, c: (full(a, b), full(b, a), full(full(a, b), c), full(a, full(b, c))))(
        a, b, c
    )
    np.testing.assert_array_equal(ab, ba)
    np.testing.assert_array_equal(left, right)
    geometry = oracle.Geometry((1, 1), tuple((s - 1, s - 1) for s in b_shape), (1, 1), (1, 1), "convolution")
    np.testing.assert_array_equal(ab, oracle.conv(a, b, geometry))
