"""`jaxconv.lax` against `jax.lax`: values and gradients over random specifications, errors, and use inside Flax."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from jaxconv.lax import conv_general_dilated

from .cases import CONVENTIONS, random

METHODS = ("direct", "auto", "xla", "fft")
# For functions that would compile for seconds to run for microseconds.
quickly_compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def reference(
    lhs,
    rhs,
    strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    convention="correlation",
    **options,
):
    """`jax.lax`'s result, with the kernel flipped and what negative padding crops cropped beforehand.

    (XLA on CPU reads outside of the array for some negative paddings.)
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if convention == "convolution":
        rhs = jnp.flip(rhs, numbers.rhs_spec[2:])
    if not isinstance(padding, str):
        dilation = lhs_dilation or (1,) * len(strides)
        config = [(0, 0, 0)] * lhs.ndim
        for axis, (low, high), step in zip(numbers.lhs_spec[2:], padding, dilation, strict=True):
            config[axis] = (min(low, 0), min(high, 0), step - 1)
        lhs = lax.pad(jnp.asarray(lhs), jnp.zeros((), lhs.dtype), config)
        lhs_dilation = None
        padding = [(max(low, 0), max(high, 0)) for low, high in padding]
    return lax.conv_general_dilated(
        lhs, rhs, strides, padding, lhs_dilation, rhs_dilation, numbers, precision="highest", **options
    )


@st.composite
def problems(draw):
    """Shapes of both operands and every option of the function."""
    rank = draw(st.sampled_from([0, 1, 1, 2, 2, 2, 3]))

    def several(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kind = draw(st.sampled_from(["none", "feature", "batch"]))
    groups = draw(st.integers(2, 3)) if kind != "none" else 1
    features = draw(st.integers(1, 3))
    shapes = {
        "lhs": [draw(st.integers(1, 2)), features, *several(5, 8)],
        "rhs": [draw(st.integers(1, 2)) * groups, features, *several(1, 4)],
    }
    if kind == "feature":
        shapes["lhs"][1] *= groups
    if kind == "batch":
        shapes["lhs"][0] *= groups
    padding = draw(
        st.one_of(
            st.sampled_from(["SAME", "SAME_LOWER", "VALID", "same"]),
            st.just(tuple(zip(several(-2, 4), several(-2, 4), strict=True))),
        )
    )
    options = {
        "strides": several(1, 3),
        "padding": padding,
        "lhs_dilation": None if isinstance(padding, str) else several(1, 3),
        "rhs_dilation": draw(st.sampled_from([None, several(1, 2)])),
        "feature_group_count": groups if kind == "feature" else 1,
        "batch_group_count": groups if kind == "batch" else 1,
        "convention": draw(st.sampled_from(CONVENTIONS)),
    }
    space = "DHW"[3 - rank :]
    numbers = tuple("".join(draw(st.permutations(letters + space))) for letters in ("NC", "OI", "NC"))
    lhs, rhs = (
        tuple(size for _, size in sorted(zip(map(order.index, letters + space), shapes[name], strict=True)))
        for order, letters, name in zip(numbers, ("NC", "OI"), ("lhs", "rhs"), strict=False)
    )
    as_numbers = draw(st.booleans())
    options["dimension_numbers"] = lax.conv_dimension_numbers(lhs, rhs, numbers) if as_numbers else numbers
    dtype = draw(st.sampled_from(["float64", "float64", "complex128"]))
    return random(lhs, dtype, "lhs"), random(rhs, dtype, "rhs"), options


def ours(lhs, rhs, strides, padding, **options):
    return conv_general_dilated(lhs, rhs, strides, padding, **options)


@given(problems(), st.sampled_from(METHODS))
def test_values_and_gradients(problem, method):
    lhs, rhs, options = problem

    @quickly_compiled
    def compute(lhs, rhs, weights):
        results = []
        for call in (functools.partial(ours, **options, method=method), functools.partial(reference, **options)):
            value, pull = jax.vjp(call, lhs, rhs)
            results.append((value, *pull(weights)))
        return results

    weights = random(jax.eval_shape(functools.partial(reference, **options), lhs, rhs).shape, str(lhs.dtype), "weights")
    for mine, theirs in zip(*compute(lhs, rhs, weights), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("lhs_axis", "rhs_axis", "rhs_shape", "options"),
    [
        (0, None, (3, 2, 2, 4), {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 2}),
        (None, 4, (2, 4, 4, 3), {"dimension_numbers": ("CNWH", "HOIW", "HWCN"), "batch_group_count": 2}),
        (2, 1, (2, 4, 2, 4), {"lhs_dilation": (1, 2), "padding": ((1, 2), (0, -1))}),
    ],
)
def test_vmap(lhs_axis, rhs_axis, rhs_shape, options):
    options = {"strides": (2, 1), "padding": ((1, 2), (0, 1)), **options}
    lhs, rhs = random((4, 4, 4, 4), "float64", "lhs"), random(rhs_shape, "float64", "rhs")
    if lhs_axis is not None:
        lhs = np.stack([lhs, lhs[::-1], -lhs], lhs_axis)
    if rhs_axis is not None:
        rhs = np.stack([rhs, rhs[::-1], -2 * rhs], rhs_axis)

    @jax.jit
    def compute(lhs, rhs):
        return [
            jax.vmap(functools.partial(call, **options), (lhs_axis, rhs_axis), 1)(lhs, rhs)
            for call in (ours, reference)
        ]

    mine, theirs = compute(lhs, rhs)
    assert np.any(theirs != 0)
    np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_negative_padding_that_xla_reads_outside_of_the_array(method):
    lhs, rhs = random((1, 15, 6, 8), "float32", "lhs"), random((4, 15, 1, 1), "float32", "rhs")
    result = conv_general_dilated(lhs, rhs, (1, 1), ((0, 0), (-5, 1)), method=method)
    cropped = np.pad(lhs.astype(float)[..., 5:], [(0, 0)] * 3 + [(0, 1)])
    np.testing.assert_allclose(result, np.einsum("nchw,ocij->nohw", cropped, rhs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "preferred"),
    [
        ("int8", "int32"),
        ("uint8", "uint32"),
        ("bfloat16", "float32"),
        ("bfloat16", "float64"),
        ("float16", "bfloat16"),
        ("float32", "float64"),
        ("complex64", "complex128"),
    ],
)
def test_preferred_element_type(dtype, preferred):
    lhs, rhs = random((2, 3, 9), dtype, "lhs"), random((4, 3, 4), dtype, "rhs")
    for name in (preferred, jnp.dtype(preferred), jnp.dtype(preferred).type):
        call = functools.partial(conv_general_dilated, window_strides=(1,), padding="SAME", preferred_element_type=name)
        assert jax.eval_shape(call, lhs, rhs).dtype == preferred
    wide = np.float64 if jnp.issubdtype(dtype, jnp.floating) else np.complex128 if "complex" in dtype else np.int64

    @quickly_compiled
    def compute(lhs, rhs):
        exact, pull = jax.vjp(lambda a, b: reference(a, b, (1,), "SAME"), lhs.astype(wide), rhs.astype(wide))
        mine, pull_mine = jax.vjp(call, lhs, rhs)
        return (mine, exact), (pull_mine(exact.astype(mine.dtype)), pull(exact)) if wide is not np.int64 else ((), ())

    (result, exact), (gradients, expected) = compute(lhs, rhs)
    if wide is np.int64:
        np.testing.assert_array_equal(result, exact)
    # Half precision is summed in float32 at least, whatever the result's dtype.
    tolerance = {"bfloat16": 1e-2, "complex128": 1e-12}.get(preferred, 1e-5)
    np.testing.assert_allclose(result.astype(wide), exact, rtol=tolerance, atol=tolerance)
    for gradient, value in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        allowed = 4 * float(jnp.finfo(dtype).eps) + (4 * tolerance if preferred == "bfloat16" else 0)
        np.testing.assert_allclose(gradient.astype(wide), value, rtol=allowed, atol=allowed * abs(value).max())


# --- arguments -------------------------------------------------------------------------------------------------------


def test_signature_begins_with_that_of_jax():
    mine, theirs = (inspect.signature(f).parameters for f in (conv_general_dilated, lax.conv_general_dilated))
    names = [name for name, parameter in mine.items() if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert names == list(theirs)[: len(names)]
    assert {name: mine[name].default for name in names} == {name: theirs[name].default for name in names}


def test_forms_of_the_arguments():
    """Lists, tuples and NumPy arrays of numbers, in plain calls and under `jit`."""
    lhs, rhs = random((2, 4, 5, 6), "float32", "lhs"), random((4, 2, 3, 3), "float32", "rhs")
    numbers = lax.ConvDimensionNumbers([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3])
    expected = conv_general_dilated(lhs, rhs, (2, 1), ((1, 1), (0, 2)), feature_group_count=2)
    for strides, padding in (([2, 1], [[1, 1], [0, 2]]), (np.array([2, 1]), np.array([[1, 1], [0, 2]]))):
        for dimension_numbers in (None, ["NCHW", "OIHW", "NCHW"], numbers):
            call = functools.partial(
                conv_general_dilated,
                window_strides=strides,
                padding=padding,
                rhs_dilation=np.ones(2, int),
                dimension_numbers=dimension_numbers,
                feature_group_count=np.int64(2),
                precision=["highest", None],
                method=["direct", "auto", "auto"],
            )
            np.testing.assert_array_equal(call(lhs, rhs), expected)
    np.testing.assert_array_equal(jax.jit(call)(lhs, rhs), expected)
    np.testing.assert_array_equal(conv_general_dilated([[[1.0, 2.0]]], [[[3.0]]], [1], "VALID"), [[[3.0, 6.0]]])


@pytest.mark.parametrize(
    ("lhs", "rhs", "padding", "shape"),
    [
        ((2, 3, 4), (5, 3, 6), "VALID", (2, 5, 0)),
        ((0, 3, 4), (5, 3, 2), "VALID", (0, 5, 3)),
        ((2, 0, 4), (5, 0, 2), "VALID", (2, 5, 3)),
        ((2, 3, 4), (0, 3, 2), "SAME", (2, 0, 4)),
        ((2, 3, 0), (5, 3, 2), "VALID", (2, 5, 0)),
        ((2, 3, 0), (5, 3, 2), "SAME", (2, 5, 0)),
        ((2, 3, 0), (5, 3, 2), ((2, 1),), (2, 5, 2)),
    ],
)
def test_empty_and_too_long(lhs, rhs, padding, shape):
    lhs, rhs = np.ones(lhs), np.ones(rhs)
    expected = jax.eval_shape(lambda a, b: lax.conv_general_dilated(a, b, (1,), padding), lhs, rhs)
    assert expected.shape == shape
    value, pull = jax.vjp(lambda a, b: conv_general_dilated(a, b, (1,), padding), lhs, rhs)
    np.testing.assert_array_equal(value, np.zeros(shape))
    for gradient, operand in zip(pull(value), (lhs, rhs), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(operand))


X, W = np.ones((2, 4, 5, 6), np.float32), np.ones((4, 4, 3, 3), np.float32)
ERRORS = [
    (
        (X, W, (1,), "SAME"),
        {},
        ValueError,
        r"window_strides must have one entry per spatial axis: got 1 \(\(1,\)\) for 2",
    ),
    ((X, W, 1, "SAME"), {}, TypeError, "window_strides must be a sequence"),
    ((X, W, (0, 1), "SAME"), {}, ValueError, r"window_strides must be positive, got \(0, 1\)"),
    ((X, W, (1.5, 1), "VALID"), {}, TypeError, "window_strides must hold integers, got 1.5 of type float"),
    ((X, W, (1, 1), "FULL"), {}, ValueError, "unknown padding 'FULL': choose 'SAME', 'SAME_LOWER', 'VALID' or pairs"),
    ((X, W, (1, 1), ((1, 0),)), {}, ValueError, "padding must have one entry per spatial axis: got 1"),
    ((X, W, (1, 1), ((1.5, 0), (0, 0))), {}, TypeError, "padding must hold integers, got 1.5 of type float"),
    ((X, W, (1, 1), (1, 1)), {}, ValueError, r"one \(low, high\) pair per spatial axis, got 1"),
    ((X, W, (1, 1), "SAME", (2, 1)), {}, ValueError, r"no meaning with lhs_dilation=\(2, 1\): give pairs of integers"),
    ((X, W, (1, 1), "VALID", (1, -1)), {}, ValueError, r"lhs_dilation must be positive, got \(1, -1\)"),
    ((X, W, (1, 1), "VALID", None, (2,)), {}, ValueError, r"rhs_dilation must have one entry per spatial axis: got 1"),
    ((X, W.astype("float16"), (1, 1), "SAME"), {}, TypeError, "same dtype, got float32 and float16: convert one"),
    ((X > 0, W > 0, (1, 1), "SAME"), {}, TypeError, "has dtype bool"),
    ((X, W[0], (1, 1), "SAME"), {}, ValueError, r"same rank, .* got shapes \(2, 4, 5, 6\) and \(4, 3, 3\)"),
    ((X, W[:, :3], (1, 1), "SAME"), {}, ValueError, "the input has 4 features, but the kernel expects 3 in each of 1"),
    ((X, W, (1, 1), "SAME"), {"feature_group_count": 3}, ValueError, "kernel's 4 output features .* into 3 groups"),
    (
        (X, W[:3], (1, 1), "SAME"),
        {"batch_group_count": 3},
        ValueError,
        "the batch of 2 cannot be divided into 3 groups",
    ),
    ((X, W, (1, 1), "SAME"), {"feature_group_count": 0}, ValueError, "feature_group_count must be positive, got 0"),
    ((X, W, (1, 1), "SAME"), {"batch_group_count": 1.5}, TypeError, "batch_group_count must be an integer, got 1.5"),
    (
        (X, W, (1, 1), "SAME"),
        {"feature_group_count": 2, "batch_group_count": 2},
        ValueError,
        "at most one of feature_group_count and batch_group_count may exceed 1, got 2 and 2",
    ),
    ((X, W, (1, 1), "SAME"), {"preferred_element_type": "int32"}, TypeError, "preferred_element_type .* got int32"),
    ((X, W, (1, 1), "SAME"), {"preferred_element_type": "bfloat16"}, TypeError, "got bfloat16 for float32"),
    ((X, W, (1, 1), "SAME"), {"dimension_numbers": ("NHWC", "HWIO")}, TypeError, "dimension_numbers"),
    (
        (X, W, (1, 1), "SAME"),
        {"convention": "flipped"},
        ValueError,
        "unknown convention 'flipped': choose one of 'corr",
    ),
    ((X, W, (1, 1), "SAME"), {"method": "winograd?"}, ValueError, "unknown method 'winograd\\?': choose one of 'auto'"),
    ((X.astype(int), W.astype(int), (1, 1), "SAME"), {"method": "fft"}, ValueError, "cannot give exact results"),
    ((X, W, (1, 1), "SAME"), {"precision": "exact"}, ValueError, "exact"),
]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), ERRORS)
def test_errors(arguments, options, error, message):
    """The same error in a plain call and under `jit`."""
    lhs, rhs, *static = arguments

    def call(lhs, rhs):
        return conv_general_dilated(lhs, rhs, *static, **options)

    for run in (call, jax.jit(call)):
        with pytest.raises(error, match=message):
            run(lhs, rhs)


@pytest.mark.parametrize("sizes", ["batch, 3, 8, 8", "batch, 3, height, width"])
def test_exported_with_symbolic_sizes(sizes):
    rhs = random((6, 1, 3, 3), "float32", "rhs")
    shape = jax.export.symbolic_shape(sizes)

    def call(lhs):
        return conv_general_dilated(lhs, rhs, (2, 1), "SAME", feature_group_count=3)

    exported = jax.export.export(jax.jit(call))(jax.ShapeDtypeStruct(shape, np.float32))
    lhs = random((4, 3, 8, 8), "float32", "lhs")
    np.testing.assert_allclose(exported.call(lhs), call(lhs), rtol=1e-5, atol=1e-5)


# --- inside Flax -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convention", "options"),
    [
        ("correlation", {}),
        ("convolution", {"padding": "CIRCULAR", "strides": 2}),
        (
            "convolution",
            {"feature_group_count": 2, "kernel_dilation": 2, "padding": ((2, 1), (0, 0)), "use_bias": False},
        ),
        ("correlation", {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32}),
    ],
)
def test_inside_a_layer_of_flax(convention, options):
    """`flax.nnx.Conv` calls it in place of `jax.lax`'s; with flipped kernels the conventions agree."""
    function = functools.partial(conv_general_dilated, convention=convention)
    theirs = nnx.Conv(4, 6, (3, 2), rngs=nnx.Rngs(0), **options)
    mine = nnx.Conv(4, 6, (3, 2), rngs=nnx.Rngs(0), conv_general_dilated=function, **options)
    if convention == "convolution":
        mine.kernel[...] = theirs.kernel[...][::-1, ::-1]
    x = random((2, 7, 6, 4), "float32", "x")

    def loss(layer, x):
        y = layer(x)
        return jnp.sum(y.astype(jnp.float32) ** 2), y

    (_, value), gradient = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(mine, x)
    (_, expected), slope = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(theirs, x)
    tolerance = 2e-2 if "dtype" in options else 1e-5
    assert value.dtype == expected.dtype
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
    kernel = gradient["kernel"][...]
    kernel = kernel[::-1, ::-1] if convention == "convolution" else kernel
    scale = float(jnp.abs(slope["kernel"][...]).max())
    np.testing.assert_allclose(kernel, slope["kernel"][...], rtol=tolerance, atol=tolerance * scale)


def test_inside_a_layer_of_linen():
    """`flax.linen.Conv` takes it too."""
    x = random((2, 7, 6, 4), "float32", "x")
    theirs = linen.Conv(6, (3, 2), strides=2, feature_group_count=2)
    mine = linen.Conv(6, (3, 2), strides=2, feature_group_count=2, conv_general_dilated=conv_general_dilated)
    variables = theirs.init(jax.random.key(0), x)
    np.testing.assert_allclose(mine.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-5)
