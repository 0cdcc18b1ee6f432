"""What `xla` asks of XLA so that its convolutions are fast."""

from __future__ import annotations

import functools
import math
import re

import jax
import numpy as np
import pytest

from jaxconv._algorithms import _library
from jaxconv._ops import conv

from .cases import Case, operands
from .methods import check_inside_shard_map, problem
from .tolerances import check

UNPADDED = (
    (Case("last axis", (9, 33), (3, 3), c=64, o=1), 1),
    (Case("first axis, strided", (33, 9), (7, 3), strides=(2, 1), n=2, c=65, o=2), 0),
    (Case("only one axis has room", (12, 30), (5, 1), c=130, o=2), 0),
    (Case("groups", (20, 21), (3, 3), g=2, c=48, o=1), 1),
    (Case("many taps, as many channels", (16, 15), (9, 9), n=3, c=33, o=33), 0),
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("case", "axis"), UNPADDED, ids=[case.name for case, _ in UNPADDED])
def test_unpadded_input_is_padded(case, axis, dtype):
    """XLA on CPU is slow otherwise; the output that comes with it is cut off."""
    x, w = operands(case, dtype)
    function = jax.jit(functools.partial(conv, **case.options, method="xla"))
    check("value", function(x, w), x, w, case, "correlation", dtype, fft=False)
    pads = [[0, 0], [0, 0]]
    pads[axis][1] = case.strides[axis]
    assert f"pad = {pads}" in function.lower(x, w).as_text()


@pytest.mark.parametrize(
    "case",
    [
        Case("padded", (9, 33), (3, 3), padding=1, c=64, o=1),
        Case("more channels", (9, 33), (3, 3), c=1, o=64),
        Case("pointwise", (9, 33), (1, 1), c=64, o=1),
        Case("one axis", (330,), (3,), c=64, o=1),
        Case("few channels", (90, 33), (3, 3), c=16, o=1),
    ],
    ids=lambda case: case.name,
)
def test_others_are_left_as_they_are(case):
    x, w = operands(case, "float32")
    text = jax.jit(functools.partial(conv, **case.options, method="xla")).lower(x, w).as_text()
    assert "stablehlo.slice" not in text


@pytest.mark.parametrize(
    "case",
    [
        Case("kernel of two axes", (10, 70), (10, 71), padding=((0, 0), (2, 2)), c=48, o=2),
        Case("kernel larger than input", (5, 6), (6, 6), padding=((2, 2), (1, 1)), n=2, c=130, o=1),
    ],
    ids=lambda case: case.name,
)
def test_last_sample_of_padding_is_left_to_convolution(case):
    """What is padded first must not reach the library unpadded."""
    x, w = operands(case, "float32")
    function = jax.jit(functools.partial(conv, **case.options, method="xla"))
    check("value", function(x, w), x, w, case, "correlation", "float32", fft=False)
    text = function.lower(x, w).as_text()
    assert "stablehlo.pad" in text
    assert sorted(re.findall(r"pad = \[\[0, (.)\], \[0, (.)\]\]", text)[0]) == ["0", "1"]


@pytest.mark.parametrize(
    ("case", "share"),
    [
        (Case("one tile", (20, 56), (3, 3), padding=1, c=64, o=64), 1.0),
        (Case("long rows", (20, 128), (3, 3), padding=1, c=64, o=64), 1 / 2),
        (Case("many channels", (20, 56), (3, 3), padding=1, c=64, o=128), 1 / 2),
        (Case("a tile and a half", (20, 56), (3, 3), padding=1, c=64, o=96), 2 / 3),
        (Case("short sums", (20, 256), (3, 3), padding=1, c=32, o=64), 1.0),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else None,
)
def test_share_of_the_busier_core(case, share):
    """As measured on two cores: 50 multiply-adds a nanosecond where one core computes all, up to 100 otherwise."""
    assert _library.busier(problem(case, "float32")) == pytest.approx(share)


LOOPED = Case("looped", (9, 7), (3, 2), padding=1, g=11, n=2, c=3, o=5)


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels-first", "channels-last"])
def test_many_groups_are_one_convolution_in_a_loop(channels_last):
    x, w = operands(LOOPED, "float64")
    fn = functools.partial(conv, **LOOPED.options, channels_last=channels_last, method="xla")
    text = jax.jit(fn).lower(x, w).as_text()
    assert text.count("stablehlo.convolution") == 1
    check("value", fn(x, w), x, w, LOOPED, "correlation", "float64", fft=False)
    cotangent = np.cos(np.arange(math.prod(LOOPED.y_shape))).reshape(LOOPED.y_shape)
    found = jax.vjp(fn, x, w)[1](cotangent)
    wanted = jax.vjp(functools.partial(conv, **LOOPED.options, method="matmul"), x, w)[1](cotangent)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_loop_over_models():
    """Groups that `vmap` makes lead, where a channels-last caller has them so."""
    x, w = operands(LOOPED, "float64")
    fn = functools.partial(conv, **LOOPED.options, channels_last=True, method="xla")
    mapped = jax.vmap(lambda x, w: fn(x[None], w[None])[0])
    check("value", mapped(x, w), x, w, LOOPED, "correlation", "float64", fft=False)


def test_loop_on_two_devices(two_devices):
    """Inside `jax.shard_map` the loop's carry varies over the mesh axes that the operands vary over."""
    check_inside_shard_map(LOOPED, "xla", two_devices)
