"""Sums of shifted slices: what is done so that XLA on CPU vectorises them."""

from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import signal
from jaxconv._algorithms import shift
from jaxconv._ops import conv
from jaxconv._simplify import simplify

from .cases import Case, operands, random
from .methods import problem
from .tolerances import check

# Kernels of many taps, and rows that leave much of a vector instruction idle.
JOINED = (
    Case("volume", (5, 6, 7), (4, 4, 4), padding=1),
    Case("volume-strided", (5, 5, 7), (4, 4, 4), (2, 1, 1), padding=1),
    Case("volume-dilated", (4, 4, 7), (4, 4, 3), padding=2, lhs_dilation=(1, 1, 2)),
    Case("image", (12, 20), (8, 8), padding=((3, 4), (0, 2)), n=2),
)


@pytest.mark.parametrize("convention", ["convolution", "correlation"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
@pytest.mark.parametrize("case", JOINED, ids=str)
def test_short_rows_are_joined(case, dtype, convention):
    simple, _ = simplify(problem(case, dtype))
    assert shift._joined(simple) > simple.output_shape[-1]
    x, w = operands(case, dtype)
    y = jax.jit(functools.partial(conv, **case.options, convention=convention, method="shift"))(x, w)
    check("value", y, x, w, case, convention, dtype, fft=False)


@pytest.mark.parametrize(("length", "rows"), [(20001, "59,339"), (64 * 300, "64,300"), (20011, "64,312")])
def test_long_sums_are_computed_in_rows(length, rows):
    """XLA on CPU vectorises what it divides among cores along a single axis only if nothing is left over."""
    taps = 5
    x, w = random((length + taps - 1,), "float64", "x"), random((taps,), "float64", "w")

    def correlate(x, w):
        return signal.correlate(x, w, "valid", method="shift")

    np.testing.assert_allclose(correlate(x, w), np.correlate(x, w), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda x: correlate(x, w).sum())(x), np.convolve(np.ones(length), w), rtol=1e-12, atol=1e-12
    )
    text = jax.jit(correlate).lower(x, w).compile().as_text()
    assert rows in re.findall(r"f64\[([\d,]+)\]\S* fusion", text)


# So many terms that they are computed in rounds, with and without rows that are left over.
ROUNDS = (
    Case("image", (11, 30), (9, 10), padding=((3, 4), (0, 2)), n=2),
    Case("image-joined", (12, 20), (11, 8), padding=((5, 5), (4, 3))),
    Case("volume", (5, 6, 7), (4, 4, 6), padding=2),
    Case("strided-dilated", (31, 40), (8, 11), (2, 3), 4, rhs_dilation=(2, 1)),
    Case("dilated-input", (9, 8), (9, 9), padding=4, lhs_dilation=(2, 1), o=2),
    Case("channels", (9, 10), (3, 3), padding=1, n=2, c=12, o=3),
    Case("depthwise", (14, 13), (9, 9), padding=4, n=2, g=3),
    Case("signal", (700,), (97,), padding=((96, 40),)),
)


@pytest.mark.parametrize("convention", ["convolution", "correlation"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int32"])
@pytest.mark.parametrize("case", ROUNDS, ids=str)
def test_many_taps_are_summed_in_rounds(case, dtype, convention):
    x, w = operands(case, dtype)
    function = jax.jit(functools.partial(conv, **case.options, convention=convention, method="shift"))
    check("value", function(x, w), x, w, case, convention, dtype, fft=False)
    written = function.lower(x, w).as_text().count("stablehlo.multiply")
    assert 0 < written < math.prod(case.taps) * case.c


# Long enough to be divided among cores, and how many samples are copied to be padded, or joined.
LONG = {
    Case("valid", (33000,), (5,)): 0,
    Case("few", (33000,), (3,), padding=1): 0,
    Case("few-strided-dilated", (45001,), (4,), strides=2, padding=((5, 12),), rhs_dilation=3): 0,
    Case("full", (9001,), (8,), padding=7): 9024,
    Case("low", (9002,), (8,), padding=((9, 0),)): 9024,
    Case("no-divisor", (9004,), (8,), padding=7): 9024 + 9011,
    Case("few-no-divisor", (33013,), (3,), padding=1): 33013,
    Case("strided-dilated", (18500,), (9,), strides=2, padding=((5, 12),), rhs_dilation=3): 18560,
    Case("among-others", (4, 18000), (4, 5), padding=((0, 0), (3, 2))): 4 * 18048,
}


@pytest.mark.parametrize("convention", ["convolution", "correlation"])
@pytest.mark.parametrize(("case", "copied"), LONG.items(), ids=map(str, LONG))
def test_long_signals_are_copied_only_to_be_padded(case, copied, convention):
    x, w = operands(case, "float64")
    function = jax.jit(functools.partial(conv, **case.options, convention=convention, method="shift"))
    check("value", function(x, w), x, w, case, convention, "float64", fft=False)
    scratch = function.lower(x, w).compile().memory_analysis().temp_size_in_bytes
    assert 0 <= scratch - 8 * copied < 2000


# Few taps that are padded each on its own, around an axis that is not.
FEW = (
    Case("causal", (50,), (4,), padding=((3, 0),), n=2, g=20),
    Case("strided-dilated", (51, 20), (2, 2), (2, 1), ((3, 2), (1, 2)), rhs_dilation=(3, 2), n=2, g=17),
    Case("rows", (30, 40), (3, 1), padding=((1, 1), (0, 0))),
)


@pytest.mark.parametrize("convention", ["convolution", "correlation"])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_few_taps_need_no_padded_copy(case, convention):
    x, w = operands(case, "float64")
    options = {**case.options, "convention": convention, "channels_last": case.g > 1}
    function = jax.jit(functools.partial(conv, **options, method="shift"))
    check("value", function(x, w), x, w, case, convention, "float64", fft=False)

    def of_held(x, w):
        return function(jnp.moveaxis(x, -1, 0)[:, :, None], jnp.moveaxis(w, -1, 0)[:, None, None])[:, :, 0]

    held = [jnp.moveaxis(array, 0, -1) for array in (x[:, :, 0], w[:, 0, 0])]
    scratch = jax.jit(of_held).lower(*held).compile().memory_analysis().temp_size_in_bytes
    assert case.g == 1 or scratch - np.prod(function(x, w).shape) * 8 < 2000


# The same where several axes are padded, or zeros stand between samples.
LONG_OTHERS = (
    Case("padded-otherwise", (2, 3500), (4, 6), padding=((1, 1), (3, 2))),
    Case("dilated-input", (4500,), (8,), padding=3, lhs_dilation=2),
    Case("channels", (4501,), (4,), padding=3, c=5),
)


@pytest.mark.parametrize("case", LONG_OTHERS, ids=str)
def test_other_long_signals(case):
    x, w = operands(case, "float64")
    y = jax.jit(functools.partial(conv, **case.options, method="shift"))(x, w)
    check("value", y, x, w, case, "correlation", "float64", fft=False)


@pytest.mark.parametrize(("width", "taps", "apart"), [(1024, 11, True), (1024, 10, False), (1023, 11, False)])
def test_rows_that_would_share_a_place_are_kept_apart(width, taps, apart):
    """More than 10 rows of 4096 bytes, which a cache would put in the same place, are read 64 bytes further apart."""
    x, w = random((1, 1, 1, 24, width), "float32", "x"), random((1, 1, 1, taps, 1), "float32", "w")
    function = jax.jit(functools.partial(conv, padding=((1, 0), (0, 0)), method="shift"))
    assert (f"x{width + 16}xf32>" in function.lower(x, w).as_text()) == apart
    rows = np.pad(x[0, 0, 0].astype(np.float64), ((1, 0), (0, 0)))
    expected = sum(w[0, 0, 0, tap, 0] * rows[tap : tap + 26 - taps] for tap in range(taps))
    np.testing.assert_allclose(function(x, w)[0, 0, 0], expected, rtol=1e-4, atol=1e-4)
