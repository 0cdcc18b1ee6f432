"""Matrix products for some items of the batch at a time, as they are formed where all together would be large."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import jax
import numpy as np
import pytest

import jaxconv.lax
from jaxconv._algorithms import _matrices, _outputs, matmul
from jaxconv._ops import conv
from jaxconv._simplify import simplify
from jaxconv._spec import held_by_layers

from .cases import Case, operands
from .methods import check_inside_shard_map, problem
from .tolerances import check

# Shapes of no other test: what is compiled without chunks is not reused here.
TAPS = (
    Case("im2col", (11, 7), (3, 2), (1, 2), ((1, 1), (0, 2)), n=5, c=2, o=9),
    Case("products-first", (11, 7), (3, 2), (2, 1), ((1, 1), (0, 2)), n=5, c=9, o=2),
    Case("blocks", (7, 17), (3, 5), (1, 2), ((1, 1), (1, 0)), n=5, c=2, o=9),
    Case("products-padded", (6, 5), (2, 3), padding=((1, 2), (2, 1)), lhs_dilation=(2, 1), n=5, c=13, o=2),
    Case("grouped", (11, 7), (3, 2), padding=1, g=3, n=5, c=2, o=9),
    Case("both", (6, 5, 7), (2, 2, 3), padding=1, g=2, n=5, c=3, o=4),
)
OUTPUTS = (
    Case("outputs", (11, 9), (9, 8), padding=((1, 0), (0, 1)), n=3, c=5, o=2),
    Case("outputs-of-parts", (31, 6), (23, 5), (2, 1), ((1, 0), (1, 1)), n=3, o=2),
    Case("outputs-of-one-channel", (43,), (19,), (2,), ((1, 0),), rhs_dilation=(2,), n=7, c=2, o=2),
    Case("outputs-in-blocks", (9, 31), (8, 9), padding=((1, 0), (0, 1)), rhs_dilation=(1, 3), n=3, c=5, o=2),
    Case("outputs-grouped", (19,), (16,), (2,), padding=((1, 0),), g=2, n=2, c=5, o=3),
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for module, bound in (
        (matmul, "WHOLE"),
        (matmul, "CHUNK"),
        (_outputs, "WHOLE"),
        (_outputs, "CHUNK"),
        (_matrices, "ITEM"),
        (_matrices, "NARROW_ITEM"),
    ):
        monkeypatch.setattr(module, bound, 2048)


@pytest.mark.parametrize("convention", ["correlation", "convolution"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("case", TAPS + OUTPUTS, ids=str)
def test_chunks(case, convention, channels_last):
    x, w = operands(case, "float64")
    options = {**case.options, "convention": convention, "channels_last": channels_last}
    fn = jax.jit(functools.partial(conv, **options, method="matmul"))
    assert "while" in fn.lower(x, w).as_text()
    check("value", fn(x, w), x, w, case, convention, "float64", fft=False)


@pytest.mark.parametrize("case", [TAPS[1], OUTPUTS[0]], ids=str)
def test_chunks_on_two_devices(case, two_devices):
    """Inside `jax.shard_map` the loop's carry varies over the mesh axes that the operands vary over."""
    check_inside_shard_map(case, "matmul", two_devices)


@pytest.mark.parametrize(("out", "is_joined"), [(9, True), (8, False)])
def test_uneven_columns_of_groups_are_joined_in_a_loop(out, is_joined, monkeypatch):
    monkeypatch.setattr(matmul, "WHOLE", 2**20)
    case = Case("columns", (13, 9), (2, 2), g=3, n=5, c=4, o=out)
    x, w = operands(case, "float64")
    fn = jax.jit(functools.partial(conv, **case.options, channels_last=True, method="matmul"))
    assert ("while" in fn.lower(x, w).as_text()) == is_joined
    check("value", fn(x, w), x, w, case, "correlation", "float64", fft=False)


@pytest.mark.x32
def test_windows_are_gathered_in_equal_loops():
    """XLA on CPU compiles equal loops once, and takes tens of milliseconds for each other one."""
    x, w = (np.ones(shape, np.float32) for shape in ((1, 3, 2, 13, 17), (1, 32, 2, 3, 3)))

    def slices(fn):
        text = jax.jit(fn).lower(x, w).compile().as_text()
        return {"dynamic": text.count(" dynamic-slice("), "static": text.count(" slice(")}

    gathering = functools.partial(conv, method="matmul")
    assert slices(gathering) == {"dynamic": 9, "static": 0}
    text = jax.jit(gathering).lower(x, w).compile().as_text()
    # Loops that are given the same buffer twice would be compiled apart from those that are given two.
    operands = re.search(r" call\((.*?)\), to_apply", text)[1].split(", ")
    assert len(set(operands)) == len(operands) == 3 + 3 + 2


@pytest.mark.x32
def test_patches_have_as_many_slices_as_blocks():
    """A patch of many taps is gathered row by row."""
    case = Case("patches", (24, 39), (12, 13), (12, 13), n=2, c=3, o=5)
    assert math.prod(case.taps) > matmul.MAX_WINDOWS
    x, w = operands(case, "float32")
    fn = jax.jit(functools.partial(conv, **case.options, channels_last=True, method="matmul"))
    check("value", fn(x, w), x, w, case, "correlation", "float32", fft=False)


@pytest.mark.x32
@pytest.mark.parametrize(("taps", "runs"), [(2, (16,)), (3, (24,)), (5, (24, 16)), (6, (24, 24)), (1, ())])
def test_strided_windows_are_gathered_in_blocks(taps, runs):
    """What is read beyond the last window, to fill up a block, is not multiplied: an infinity there spreads nowhere."""
    case = Case("blocks", (11, 32), (2, taps), (1, 3), ((1, 0), (0, 0)), n=2, c=8, o=24)
    x, w = operands(case, "float32")
    last = problem(case, "float32")
    simple, _ = simplify(
        dataclasses.replace(last, spec=dataclasses.replace(last.spec, held=held_by_layers(2, channels_last=True)))
    )
    assert matmul._runs(simple, matmul._split(simple) or 0) == runs
    x[..., 31] = np.inf
    x[..., 4] = np.inf
    function = functools.partial(conv, **case.options, channels_last=True)
    np.testing.assert_allclose(function(x, w, method="matmul"), function(x, w, method="xla"), rtol=1e-4, atol=1e-4)


@pytest.mark.x32
@pytest.mark.parametrize("argument", [0, 1])
def test_gradients_of_pointwise_layers_transpose_no_more_than_a_kernel(argument):
    """XLA multiplies the matrices that it sums over as they are."""
    x, w = np.ones((8, 16, 16, 32), np.float32), np.ones((1, 1, 32, 24), np.float32)
    layer = functools.partial(
        jaxconv.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        method="matmul",
    )

    def gradient(cotangent, x, w):
        return jax.vjp(layer, x, w)[1](cotangent)[argument]

    text = jax.jit(gradient).lower(np.ones((8, 16, 16, 24), np.float32), x, w).compile().as_text()
    moved = re.findall(r"= f32\[([\d,]+)\]\S* (?:transpose|copy|fusion\(.*kind=k(?:Loop|Input))", text)
    assert {math.prod(map(int, shape.split(","))) for shape in moved} == {w.size}


# An image's few channels in planes, some images or rows at a time; its many; and the same where channels lead.
KERNEL_GRADIENTS = (
    Case("few", (12, 11), (3, 2), padding=1, n=5, c=3, o=40),
    Case("few-to-few", (12, 11), (3, 2), padding=1, n=5, c=1, o=4),
    Case("few-of-one", (40, 11), (3, 2), padding=1, c=3, o=7),
    Case("many", (12, 11), (3, 2), padding=1, n=5, c=9, o=7),
    Case("dilated", (12, 11), (3, 2), padding=1, rhs_dilation=(2, 1), n=5, c=3, o=7),
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("case", KERNEL_GRADIENTS, ids=str)
def test_kernel_gradients_in_chunks(case, channels_last, dtype):
    x, w = operands(case, dtype)

    def gradient(method):
        layer = functools.partial(conv, x, **case.options, channels_last=channels_last, method=("xla", "xla", method))
        y, pullback = jax.vjp(layer, w)
        return jax.jit(lambda ct: pullback(ct)[0])(np.cos(np.arange(y.size)).reshape(y.shape).astype(dtype))

    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(gradient("matmul"), gradient("xla"), rtol=tolerance, atol=tolerance)


@pytest.mark.x32
@pytest.mark.parametrize(("numbers", "x", "ct"), [
    (("NCHW", "OIHW", "NCHW"), (8, 3, 64, 64), (8, 16, 64, 64)),
    (("NHWC", "HWIO", "NHWC"), (8, 64, 64, 3), (8, 64, 64, 16)),
    (("NCHW", "OIHW", "NCHW"), (1, 8, 64, 64), (1, 16, 64, 64)),
])  # fmt: skip
def test_kernel_gradients_leave_the_cotangent_where_it_is(numbers, x, ct):
    """No more than a few images of it are copied at a time."""
    channels = (numbers[0].index("C"), numbers[2].index("C"))
    shape = {"O": ct[channels[1]], "I": x[channels[0]], "H": 3, "W": 3}
    w = np.ones([shape[axis] for axis in numbers[1]], np.float32)
    layer = functools.partial(
        jaxconv.lax.conv_general_dilated,
        np.ones(x, np.float32),
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=numbers,
        method="matmul",
    )
    gradient = jax.linear_transpose(layer, w)
    text = jax.jit(gradient).lower(np.ones(ct, np.float32)).compile().as_text()
    moved = re.findall(r"= f32\[([\d,]+)\]\S* (?:transpose|copy|fusion\(.*kind=k(?:Loop|Input))", text)
    assert max(math.prod(map(int, shape.split(","))) for shape in moved) < math.prod(ct)


@pytest.mark.x32
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("length", "columns"), [(3, 5), (40, 5), (40, 9)])
def test_products_of_rows(length, columns, dtype):
    """Either way to multiply matrices computes the same; short rows and many columns of floats are a convolution."""
    rng = np.random.default_rng(0)
    rows, w = rng.standard_normal((50, length)), rng.standard_normal((length, columns))
    with jax.enable_x64(True):
        target = problem(Case("rows", (50,), (1,), c=length, o=columns), dtype)
        product = functools.partial(_matrices.product_of_rows, target, platform="cpu")
        operands_of_dtype = rows.astype(dtype), w.astype(dtype)
        np.testing.assert_allclose(product(*operands_of_dtype), rows @ w, atol=1e-4 if dtype == "float32" else 1e-13)
        primitives = {str(equation.primitive) for equation in jax.make_jaxpr(product)(*operands_of_dtype).eqns}
    by_convolution = dtype == "float32" and (length, columns) != (40, 5)
    assert ("conv_general_dilated" in primitives, "dot_general" in primitives) == (by_convolution, not by_convolution)


@pytest.mark.x32
def test_half_precision_is_multiplied_as_it_is():
    """Not converted first: processors multiply it faster; sums are float32 all the same."""
    case = Case("half", (40,), (3,), padding=1, n=2, c=32, o=9)
    x, w = operands(case, "bfloat16")
    text = jax.jit(functools.partial(conv, **case.options, channels_last=True, method="matmul")).lower(x, w).as_text()
    (product,) = re.findall(r"stablehlo\.dot_general .*: \((.*)\) -> (.*)\n", text)
    assert [re.sub(r"[^<]*x", "", part) for part in product] == ["tensor<bf16>, tensor<bf16>", "tensor<f32>"]
