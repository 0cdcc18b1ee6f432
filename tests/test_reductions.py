"""Sums of several arrays at once, and the kernel gradients that are made of them."""

import functools
import re

import jax
import numpy as np
import pytest

from jaxconv._algorithms import _reductions
from jaxconv._ops import conv

from .cases import Case, random
from .tolerances import check

SHAPES = [
    ((2,), ()),
    ((7,), ()),
    ((4999,), ()),  # blocks of a single axis, and a rest
    ((16, 5), ()),
    ((17, 6), ()),  # a rest of one row
    ((3, 2, 30), ()),
    ((17, 1, 3), (2,)),  # a rest of one row, of which something is kept
    ((2, 2, 5), (2,)),  # nothing to cut
    ((4, 23, 3), (0,)),
    ((13, 4, 6), (1,)),
]


@pytest.mark.parametrize(("shape", "kept"), SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_totals(shape, kept, dtype):
    arrays = random((14, *shape), dtype, "arrays")
    summed = tuple(axis for axis in range(len(shape)) if axis not in kept)
    found = jax.jit(lambda arrays: _reductions.totals(list(arrays), kept))(arrays)
    np.testing.assert_allclose(found, arrays.sum(tuple(1 + axis for axis in summed)), rtol=1e-12, atol=1e-12)


def test_products_are_summed_in_one_loop():
    """The products of as many windows as fit are fused into one loop, which reads what they share once."""
    x, w = random((40, 44), "float32", "x"), random((40, 40), "float32", "w")

    def windows(x, w):
        return _reductions.totals([x[:, i : i + 40] * w for i in range(5)], ())

    text = jax.jit(windows).lower(x, w).compile().as_text()
    assert len(re.findall(r" fusion\([^)]*%w\b", text[text.index("\nENTRY") :])) == 1
    expected = [(x[:, i : i + 40] * w).sum(dtype=np.float64) for i in range(5)]
    np.testing.assert_allclose(windows(x, w), expected, rtol=1e-4, atol=1e-4)


def test_sums_over_channels_without_an_axis():
    x, w = random((2, 1, 9), "float64", "x"), random((2, 1, 9), "float64", "w")
    np.testing.assert_allclose(conv(x, w, method="shift"), (x * w).sum(-1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize(
    "case",
    [
        Case("rounds", (19, 18), (5, 6), padding=((2, 2), (3, 2))),
        Case("rounds-of-the-second-axis", (31, 9), (3, 10), padding=((0, 0), (9, 9))),
        Case("rounds-of-one-axis", (67,), (30,)),
        Case("rounds-dilated", (20, 21), (5, 6), strides=2, rhs_dilation=(2, 1)),
        Case("rounds-in-groups", (20,), (26,), padding=25, g=3, n=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_kernel_gradients_in_rounds(case, channels_last):
    x, ct = random(case.x_shape, "float64", "x"), random(case.y_shape, "float64", "ct")
    function = functools.partial(conv, x, **case.options, method=("xla", "xla", "shift"), channels_last=channels_last)
    transpose = jax.jit(jax.linear_transpose(function, jax.ShapeDtypeStruct(case.w_shape, x.dtype)))
    assert "while" in transpose.lower(ct).as_text()
    check("kernel", transpose(ct)[0], ct, x, case, "correlation", "float64", fft=False)
