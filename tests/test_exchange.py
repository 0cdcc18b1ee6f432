"""Exchanged operands: what happens to samples that are no finite numbers, and which axes are whose inside."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from jaxconv._algorithms import REGISTRY, exchange
from jaxconv._ops import conv
from jaxconv._plan import spread_inside
from jaxconv._simplify import simplify

from . import oracle
from .cases import Case, operands
from .methods import problem

CASES = (
    Case("both-edges", (9,), (8,), padding=1, n=2),
    Case("stride", (10,), (6,), 2, ((2, 1),), n=2, c=2),
    Case("dilated", (4,), (6,), padding=1, lhs_dilation=2, c=2),
    Case("two-axes", (3, 4), (4, 4), padding=((1, 0), (0, 1)), lhs_dilation=(2, 1), n=3, o=2),
    Case("no-edges", (3,), (7,), padding=2, lhs_dilation=2, n=2),
    Case("all-edges", (3, 7), (2, 9), padding=((1, 1), (2, 2)), n=2),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_samples(case):
    """One sample that is no finite number, at every place: as the definition has it, and nowhere else."""
    x, w = operands(case, "float64")
    function = jax.jit(functools.partial(conv, **case.options, convention="convolution", method="exchange"))
    assert ("stablehlo.case" in function.lower(x, w).as_text()) == (case.name != "no-edges")
    np.testing.assert_allclose(function(x, w), oracle.conv(x, w, case.geometry("convolution")), rtol=1e-12)
    for value in (np.nan, np.inf):
        for place in range(x.size):
            spoilt = x.copy()
            spoilt.reshape(-1)[place] = value
            # The plain loops would multiply it by nothing that it does not meet.
            expected = oracle.conv(spoilt, w, case.geometry("convolution"))
            np.testing.assert_allclose(function(spoilt, w), expected, rtol=1e-12, atol=1e-12)


def test_integers_are_not_looked_at():
    """Every integer is finite."""
    case = CASES[0]
    text = jax.jit(functools.partial(conv, **case.options, method="exchange")).lower(*operands(case, "int32")).as_text()
    assert "stablehlo.case" not in text


def test_bad_taps():
    """A kernel that is not finite everywhere gives what XLA gives."""
    x, w = operands(CASES[0], "float64")
    w.reshape(-1)[1::3] = np.inf
    x, w = np.abs(x), np.abs(w)
    results = [conv(x, w, **CASES[0].options, convention="correlation", method=m) for m in ("exchange", "xla")]
    assert np.isposinf(results[0]).any()
    np.testing.assert_array_equal(*results)


def test_what_meets_more():
    """By hand: outputs 0 to 3 read samples -1 to 6 ... 2 to 9 of the 9; of 3 samples 2 apart, each output reads all."""
    meets = [exchange._meets_more(simplify(problem(case, "float32"))[0]) for case in CASES]
    assert meets == [case.name != "no-edges" for case in CASES]


def test_sharding_inside():
    """The batch that devices share is the output channels inside."""
    spread = (("groups", 2), ("batch", 3), ("in_channels", 4), ("out_channels", 5))
    inside = {"groups": 2, "out_channels": 3, "in_channels": 4, "batch": 5}
    assert dict(spread_inside(REGISTRY["exchange"], spread)) == inside
    assert spread_inside(REGISTRY["planes"], spread) == spread
