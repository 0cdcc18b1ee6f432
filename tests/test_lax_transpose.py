"""`jaxconv.lax.conv_transpose` and the two short forms against `jax.lax`."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxconv

from .cases import CONVENTIONS, random

quickly_compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# Layouts of one and two spatial axes, in the order (batch, features, *space) and (out, in, *space) of their letters.
LAYOUTS = {
    1: [None, ("NCH", "OIH", "NCH"), ("HNC", "IHO", "CHN")],
    2: [None, ("NCHW", "OIHW", "NHWC"), ("WNHC", "HOWI", "CNHW")],
}
DTYPES = ("float64", "complex128")
DEFAULTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}


@st.composite
def problems(draw):
    """Two operands and the options of `conv_transpose`."""
    rank = draw(st.sampled_from([1, 1, 2]))

    def several(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    layout = draw(st.sampled_from(LAYOUTS[rank]))
    transpose = draw(st.booleans())
    features, others = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes = {
        "lhs": dict(zip("NCHW", (2, features, *several(5, 6)), strict=False)),
        "rhs": dict(zip("IOHW" if not transpose else "OIHW", (features, others, *several(1, 4)), strict=False)),
    }
    lhs, rhs, _ = layout or DEFAULTS[rank]
    shapes = [tuple(sizes["lhs"][letter] for letter in lhs), tuple(sizes["rhs"][letter] for letter in rhs)]
    options = {
        "strides": several(1, 3),
        "padding": draw(
            st.one_of(
                st.sampled_from(["SAME", "VALID"]),
                st.just(tuple(zip(several(0, 2), several(0, 2), strict=True))),
            )
        ),
        "rhs_dilation": draw(st.sampled_from([None, several(1, 3)])),
        "dimension_numbers": layout,
        "transpose_kernel": transpose,
        "use_consistent_padding": draw(st.booleans()),
    }
    return shapes, options


def reference(lhs, rhs, convention, **options):
    """`jax.lax`'s result, with the kernel flipped for the other convention."""
    if convention == "convolution":
        layout = options["dimension_numbers"] or DEFAULTS[lhs.ndim - 2]
        rhs = jnp.flip(rhs, [axis for axis, letter in enumerate(layout[1]) if letter in "HW"])
    return lax.conv_transpose(lhs, rhs, **options, precision="highest")


@settings(max_examples=60)
@given(problems())
def test_shapes(problem):
    (lhs, rhs), options = problem
    shapes = [
        jax.eval_shape(functools.partial(call, **options), np.zeros(lhs), np.zeros(rhs)).shape
        for call in (jaxconv.lax.conv_transpose, lax.conv_transpose)
    ]
    assert shapes[0] == shapes[1]


@settings(max_examples=12)
@given(problems(), st.sampled_from(CONVENTIONS), st.sampled_from(["direct", "fft"]), st.sampled_from(DTYPES))
def test_values_and_gradients(problem, convention, method, dtype):
    (lhs, rhs), options = problem
    # XLA reads outside of the array for some negative paddings, which consistent padding may need.
    options["use_consistent_padding"] &= isinstance(options["padding"], str)
    lhs, rhs = random(lhs, dtype, "lhs"), random(rhs, dtype, "rhs")
    ours = functools.partial(jaxconv.lax.conv_transpose, **options, convention=convention, method=method)
    theirs = functools.partial(reference, **options, convention=convention)

    @quickly_compiled
    def compute(lhs, rhs, weights):
        return [(value, *pull(weights)) for value, pull in (jax.vjp(call, lhs, rhs) for call in (ours, theirs))]

    weights = random(jax.eval_shape(theirs, lhs, rhs).shape, str(lhs.dtype), "weights")
    for mine, expected in zip(*compute(lhs, rhs, weights), strict=True):
        assert mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("padding", "consistent", "size"),
    [("VALID", False, 11), ("SAME", False, 10), (((2, 2),), True, 9), (((4, 0),), True, 9)],
)
def test_it_is_the_adjoint_of_the_convolution(convention, padding, consistent, size):
    """With ``transpose_kernel=True``, of the convolution with the same arguments and the same convention."""
    layout = ("NHC", "HIO", "NHC")
    x, w = random((2, size, 3), "float64", "x"), random((5, 3, 4), "float64", "w")
    options = {"convention": convention, "dimension_numbers": layout}

    @quickly_compiled
    def compute(x, w):
        forward = functools.partial(
            jaxconv.lax.conv_general_dilated, rhs=w, window_strides=(2,), padding=padding, **options
        )
        y, pull = jax.vjp(forward, x)
        transposed = jaxconv.lax.conv_transpose(
            y, w, (2,), padding, transpose_kernel=True, use_consistent_padding=consistent, **options
        )
        return pull(y)[0], transposed

    adjoint, transposed = compute(x, w)
    assert adjoint.shape == transposed.shape
    np.testing.assert_allclose(transposed, adjoint, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_convention_is_toggled_and_no_array_flipped(convention):
    call = functools.partial(
        jaxconv.lax.conv_transpose, strides=(2,), padding="SAME", transpose_kernel=True, convention=convention
    )
    text = str(jax.make_jaxpr(call)(np.ones((1, 4, 2)), np.ones((3, 3, 2))))
    toggled = CONVENTIONS[1 - CONVENTIONS.index(convention)]
    assert f"convention='{toggled}'" in text
    assert "rev[" not in text


@pytest.mark.parametrize("name", ["conv", "conv_with_general_padding", "conv_transpose", "conv_dimension_numbers"])
def test_signatures(name):
    mine, theirs = (inspect.signature(getattr(module, name)).parameters for module in (jaxconv.lax, lax))
    positional = {name: p for name, p in mine.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY}
    assert list(positional) == list(theirs)
    assert {name: p.default for name, p in positional.items()} == {name: p.default for name, p in theirs.items()}
    expected = set() if name == "conv_dimension_numbers" else {"convention", "method"}
    assert set(mine) - set(positional) == expected


def test_short_forms():
    lhs, rhs = random((2, 3, 7, 6), "float64", "lhs"), random((4, 3, 2, 3), "float64", "rhs")

    def compute(module, lhs, rhs, flipped, **options):
        padded = ((1, 2), (0, 1)), (2, 1), (1, 2)
        return (
            module.conv(lhs, rhs, (2, 1), "SAME", precision="highest"),
            module.conv_with_general_padding(lhs, rhs, (1, 2), *padded, precision="highest"),
            module.conv(lhs, flipped, (1, 1), "VALID", **options),
            module.conv_with_general_padding(lhs, flipped, (1, 1), padded[0], None, None, **options),
        )

    @quickly_compiled
    def both(lhs, rhs):
        mine = compute(jaxconv.lax, lhs, rhs, rhs, convention="convolution", method="fft")
        return mine, compute(lax, lhs, rhs, rhs[:, :, ::-1, ::-1])

    for mine, theirs in zip(*both(lhs, rhs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    narrow = jaxconv.lax.conv(lhs.astype("bfloat16"), rhs.astype("bfloat16"), (1, 1), "VALID", None, "float32")
    assert narrow.dtype == "float32"


@pytest.mark.parametrize(
    ("lhs", "rhs", "padding"),
    [((0, 3, 2), (4, 2, 3), "SAME"), ((2, 0, 2), (4, 2, 3), "VALID"), ((2, 3, 0), (4, 0, 3), "SAME")],
)
def test_empty(lhs, rhs, padding):
    expected = jax.eval_shape(lambda a, b: lax.conv_transpose(a, b, (2,), padding), np.zeros(lhs), np.zeros(rhs))
    value, pull = jax.vjp(
        lambda a, b: jaxconv.lax.conv_transpose(a, b, (2,), padding), jnp.zeros(lhs) + 1, jnp.zeros(rhs) + 1
    )
    np.testing.assert_array_equal(value, np.zeros(expected.shape))
    for gradient, shape in zip(pull(value), (lhs, rhs), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros(shape))


X, W = np.ones((2, 5, 6, 4), np.float32), np.ones((3, 3, 4, 7), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X, W, (2,), "SAME"), {}, ValueError, r"strides must have one entry per spatial axis: got 1 \(\(2,\)\) for 2"),
        ((X, W, (2, 0), "SAME"), {}, ValueError, r"strides must be positive, got \(2, 0\)"),
        ((X, W, (2, 2), "SAME", (1.5, 1)), {}, TypeError, "rhs_dilation must hold integers, got 1.5 of type float"),
        (
            (X, W, (2, 2), "same"),
            {},
            ValueError,
            r"unknown padding 'same' for strides=\(2, 2\): choose 'SAME'",
        ),
        ((X, W, (1, 1), "FULL"), {}, ValueError, "unknown padding 'FULL'"),
        ((X, W, (1, 1), "FULL"), {"use_consistent_padding": True}, ValueError, "unknown padding 'FULL'"),
        ((X, W, (1, 1), None), {}, ValueError, "padding must be 'SAME', .* got None"),
        ((X, W, (1, 1), None), {"use_consistent_padding": True}, ValueError, "padding must be 'SAME', .* got None"),
        ((X, W, (1, 1), (1, 1)), {"use_consistent_padding": True}, ValueError, r"one \(low, high\) pair .*, got 1"),
        ((X, W, (1, 1), ((1, 1),)), {"use_consistent_padding": True}, ValueError, "one entry per spatial axis: got 1"),
        ((X, W[0], (1, 1), "SAME"), {}, ValueError, r"same rank, .* \(2, 5, 6, 4\) and \(3, 4, 7\)"),
        ((X, W, (1, 1), "SAME"), {"transpose_kernel": True}, ValueError, "input has 4 features, .* expects 7"),
        ((X, W, (1, 1), "SAME"), {"convention": "c", "transpose_kernel": True}, ValueError, "unknown convention 'c'"),
        ((np.ones((1,) * 6), np.ones((1,) * 6), (1,) * 4, "SAME"), {}, ValueError, "at most 3 spatial axes, .* with 4"),
    ],
)
def test_errors(arguments, options, error, message):
    lhs, rhs, *static = arguments

    def call(lhs, rhs):
        return jaxconv.lax.conv_transpose(lhs, rhs, *static, **options)

    for run in (call, jax.jit(call)):
        with pytest.raises(error, match=message):
            run(lhs, rhs)


def test_forms_of_the_arguments():
    lhs, rhs = random((1, 4, 2), "float32", "lhs"), random((3, 2, 2), "float32", "rhs")
    expected = jaxconv.lax.conv_transpose(lhs, rhs, (2,), ((1, 1),))
    forms: list[Any] = [([2], [[1, 1]]), (np.array([2]), np.array([[1, 1]]))]
    for strides, padding in forms:
        call = functools.partial(jaxconv.lax.conv_transpose, strides=strides, padding=padding)
        np.testing.assert_array_equal(call(lhs, rhs), expected)
    layout = lax.ConvDimensionNumbers([0, 2, 1], [2, 1, 0], [0, 2, 1])
    result = jaxconv.lax.conv_transpose(lhs, rhs, (2,), ((1, 1),), dimension_numbers=layout)
    np.testing.assert_array_equal(result, expected)
    result = jaxconv.lax.conv_transpose(lhs, rhs, (2,), ((1, 1),), None, ["NHC", "HIO", "NHC"])
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap(axes):
    lhs = random((3, 2, 4, 2) if axes[0] == 0 else (2, 4, 2), "float64", "lhs")
    rhs = random((3, 3, 2, 2) if axes[1] == 0 else (3, 2, 2), "float64", "rhs")

    @quickly_compiled
    def compute(lhs, rhs):
        return [
            jax.vmap(lambda a, b, m=module: m.conv_transpose(a, b, (2,), "SAME"), axes)(lhs, rhs)
            for module in (jaxconv.lax, lax)
        ]

    mine, theirs = compute(lhs, rhs)
    np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
