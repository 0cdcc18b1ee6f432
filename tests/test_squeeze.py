"""Axes that are taken out, in the order in which a caller holds them."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

import jaxconv.lax
from jaxconv._ops import conv

from .cases import Case, operands
from .tolerances import check

CASES = (
    Case("one-tap", (4, 6, 3), (1, 2, 1), (2, 1, 1), ((1, 0), (1, 1), (0, 1)), g=3, n=2, c=2, o=3),
    Case("one-sample", (1, 6), (3, 2), padding=((2, 1), (0, 1)), g=2, n=2, c=3, o=2),
    Case("one-output", (4, 6), (4, 3), padding=((0, 0), (1, 0)), g=2, n=2, c=2, o=3),
    Case("one-of-each", (5, 1, 4), (5, 2, 1), padding=((0, 0), (1, 1), (0, 0)), g=2, n=3, c=2, o=2),
)


@pytest.mark.parametrize("convention", ["correlation", "convolution"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_channels_last(case, convention):
    x, w = operands(case, "float64")
    fn = functools.partial(conv, **case.options, convention=convention, channels_last=True, method="squeeze")
    check("value", fn(x, w), x, w, case, convention, "float64", fft=False)


@pytest.mark.x32
def test_merged_axes_are_not_transposed():
    """An axis of one tap that a channels-last caller has beside the batch is merged where it stands."""
    x, w = (np.ones(shape, np.float32) for shape in ((3, 20, 40, 30), (1, 3, 30, 26)))
    fn = functools.partial(
        jaxconv.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        method="squeeze",
    )
    text = jax.jit(fn).lower(x, w).compile().as_text() or ""
    assert "transpose(" not in text
    assert "copy(" not in text
