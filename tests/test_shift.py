"""Sums of shifted slices: what is done so that XLA on CPU vectorises them."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np
import pytest

from jaxconv import signal
from jaxconv._algorithms import shift
from jaxconv._ops import conv
from jaxconv._spec import simplify

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


@pytest.mark.parametrize("length", [20001, 64 * 300])
def test_long_sums_are_cut_where_xla_can_divide_them(length):
    """XLA on CPU vectorises what it divides among cores along a single axis only if nothing is left over."""
    taps = 5
    x, w = random((length + taps - 1,), "float64", "x"), random((taps,), "float64", "w")

    def correlate(x, w):
        return signal.correlate(x, w, "valid", method="shift")

    np.testing.assert_allclose(correlate(x, w), np.correlate(x, w), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda x: correlate(x, w).sum())(x), np.convolve(np.ones(length), w), rtol=1e-12, atol=1e-12
    )
    shapes = re.findall(r"f64\[(\d+)\]\S* fusion", jax.jit(correlate).lower(x, w).compile().as_text())
    assert str(length - length % 64) in shapes
    assert str(length) not in shapes or length % 64 == 0
