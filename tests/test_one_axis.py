"""`toeplitz` and `lags` along one axis of several: columns where they stand, and what is large in parts."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxconv._algorithms import REGISTRY, _one_axis, lags, toeplitz
from jaxconv._ops import conv
from jaxconv._simplify import simplify

from .cases import Case, operands, random
from .methods import problem
from .tolerances import check

# Kernels along the first axis, the middle and the last one; the numbers are such that the last part of each is a rest.
FORWARD = (
    Case("columns", (40, 7), (6, 1), padding=((3, 2), (0, 0)), n=2),
    Case("middle", (3, 37, 5), (1, 4, 1), (2, 3, 1), padding=((1, 1), (2, 1), (0, 1))),
    Case("rows", (11, 50), (1, 7), padding=((0, 0), (3, 3))),
    Case("one-row", (600,), (9,), 2, padding=4),
    Case("channels", (5, 30), (1, 4), n=2, c=2, o=3),
)
KERNEL = (
    Case("columns", (40, 7), (6, 1), padding=((3, 2), (0, 0)), c=2),
    Case("middle", (3, 37, 6), (1, 4, 1), padding=((0, 0), (2, 1), (0, 0))),
    Case("rows", (11, 50), (1, 7), padding=((0, 0), (3, 3))),
    Case("one-row", (260,), (9,), padding=4),
    Case("batch", (5, 30), (1, 4), n=2, c=2, o=3),
)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts that are small, of problems that are small too."""
    monkeypatch.setattr(_one_axis, "COLUMNS", 5)
    for module in (toeplitz, lags):
        monkeypatch.setattr(module, "WHOLE", 3000)
        monkeypatch.setattr(module, "CHUNK", 1500)
        monkeypatch.setattr(module, "BLOCKS", (8,))
    jax.clear_caches()


def loops(function, *arguments) -> int:
    return jax.jit(function).lower(*arguments).as_text().count("stablehlo.while")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("convention", ["correlation", "convolution"])
@pytest.mark.parametrize("case", FORWARD, ids=str)
def test_toeplitz_in_parts(case, convention):
    x, w = operands(case, "float64")
    function = functools.partial(conv, **case.options, convention=convention, method="toeplitz")
    assert loops(function, x, w) == 1
    check("value", jax.jit(function)(x, w), x, w, case, convention, "float64", fft=False)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("case", KERNEL, ids=str)
def test_lags_in_parts(case):
    x, w = operands(case, "float64")
    ct = random(case.y_shape, "float64", "ct")
    method = ("xla", "xla", "lags")

    def gradient(x, w, ct):
        return jax.vjp(lambda w: conv(x, w, **case.options, convention="convolution", method=method), w)[1](ct)[0]

    assert loops(gradient, x, w, ct) == 1
    check("kernel", jax.jit(gradient)(x, w, ct), ct, x, case, "convolution", "float64", fft=False)


def test_columns_as_they_are(monkeypatch):
    """The columns of an image are filtered, and summed over, where they are; otherwise the image is turned."""
    case = Case("image", (300, 200), (21, 1), padding=((10, 10), (0, 0)))
    x, w = operands(case, "float32")
    simple, _ = simplify(problem(case, "float32"))
    # By hand: 300 outputs in 10 blocks of 32, which read 52 samples each.
    assert toeplitz.cost(simple).multiply_adds == 10 * 32 * 52 * 200
    for most, turned in ((200, False), (201, True)):
        monkeypatch.setattr(_one_axis, "COLUMNS", most)
        for axis in range(2):
            function = functools.partial(conv, **case.options, method=("toeplitz", "toeplitz", "lags"))
            gradient = jax.jit(lambda x, w, ct, f=function, a=axis: jax.vjp(f, x, w)[1](ct)[a])
            found = re.search(r"stablehlo.transpose.*-> tensor<1x1x(1x200|200x1)x", gradient.lower(x, w, x).as_text())
            assert (found is not None) == turned
            jax.clear_caches()


def test_summed_axes():
    """Of a kernel gradient along one axis the others are summed; if all are, one is left."""
    case = Case("image", (30, 20), (5, 1))
    simple, _ = simplify(problem(case, "float32").kernel_gradient())
    assert _one_axis.summed_axes(simple) == (1,)
    assert _one_axis.one_dimensional(simple, (1,)).in_channels == 20
    single, _ = simplify(problem(Case("single", (4, 6), (4, 6)), "float32"))
    assert _one_axis.summed_axes(single) == (0,)
    padded, _ = simplify(problem(Case("padded", (4, 6), (4, 2), padding=((1, 0), (0, 0))), "float32"))
    assert _one_axis.summed_axes(padded) == ()


@pytest.mark.usefixtures("small_parts")
def test_parts_on_devices(two_devices):
    """What is looped over is gathered if XLA shards it, and inside `jax.shard_map` each device loops over its own."""
    case = FORWARD[0]
    simple, _ = simplify(problem(case, "float64"))
    assert REGISTRY["toeplitz"].gathers(simple) == ("batch",)
    assert REGISTRY["lags"].gathers(simplify(problem(KERNEL[0], "float64").kernel_gradient())[0]) == ("in_channels",)
    x, w = operands(case, "float64")
    spec = PartitionSpec(None, "devices")
    function = functools.partial(conv, **case.options, method="toeplitz")
    mesh = Mesh(np.array(two_devices), ("devices",))
    shared = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec))
    check("value", shared(x, w), x, w, case, "correlation", "float64", fft=False)
