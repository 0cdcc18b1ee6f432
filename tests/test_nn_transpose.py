"""Transposed convolution: against flax.nnx with the same parameters, and as the adjoint of flax.nnx.Conv."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxconv
from jaxconv import nn

from .test_nn import MADE, assert_close, flipped, quick_jit, values
from .test_nn_layers import outcomes

# (input shape, positional arguments, options)
TRANSPOSED = {
    "same": ((2, 4, 5, 2), (2, 3, (3, 2), 2), {}),
    "valid, adjoint": ((2, 4, 5, 2), (2, 3, (3, 2), (1, 3)), {"padding": "VALID", "transpose_kernel": True}),
    "circular, even kernel": ((2, 6, 5, 2), (2, 3, (4, 3), (2, 1)), {"padding": "CIRCULAR"}),
    "circular, adjoint": ((1, 6, 2), (2, 3, 4, 2), {"padding": "CIRCULAR", "transpose_kernel": True}),
    "circular, longer than the axis": ((1, 2, 2), (2, 3, 7), {"padding": "CIRCULAR", "kernel_dilation": 2}),
    "numbers, dilation, no bias": (
        (2, 4, 5, 2),
        (2, 3, (3, 2), 2),
        {"padding": [1, (0, 2)], "kernel_dilation": (2, 1), "use_bias": False},
    ),
    "integer padding, no batch": ((6, 2), (2, 3, 3), {"padding": 1}),
    "mask, batch axes": ((2, 1, 2, 4, 2), (2, 3, (3,), 3), {"mask": np.arange(18.0).reshape(3, 2, 3)}),
    "complex": ((2, 5, 2), (2, 3, 3, 2), {"param_dtype": jnp.complex128}),
    "half precision": ((2, 5, 2), (2, 3, 3, 2), {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32}),
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose_matches_flax(case: str) -> None:
    shape, arguments, options = TRANSPOSED[case]
    options = MADE | options
    half = options.get("dtype") is not None
    x = values(shape, jnp.bfloat16 if half else options["param_dtype"], seed=2)
    expected = outcomes(nnx.ConvTranspose(*arguments, **options), x)
    tolerance = 2e-2 if half else 1e-12
    assert_close(outcomes(nn.ConvTranspose(*arguments, **options), x), expected, tolerance)
    mask = options.get("mask")
    convolution = nn.ConvTranspose(
        *arguments, **options | {"convention": "convolution", "mask": None if mask is None else flipped(mask)}
    )
    convolution.kernel[...] = flipped(convolution.kernel[...])
    found = outcomes(convolution, x)
    found[1]["kernel"][...] = flipped(found[1]["kernel"][...])
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("convention", ["correlation", "convolution"])
def test_conv_transpose_is_the_adjoint_of_conv(convention: str) -> None:
    """With the same kernel and padding="VALID", where the strides leave no sample over."""
    x, y = values((1, 9, 2)), values((1, 4, 3), seed=1)
    options = {"padding": "VALID", "convention": convention, "use_bias": False, **MADE}
    conv = nn.Conv(2, 3, 3, 2, **options)
    transposed = nn.ConvTranspose(3, 2, 3, 2, transpose_kernel=True, **options)
    assert transposed.kernel.shape == conv.kernel.shape
    np.testing.assert_allclose(jnp.vdot(conv(x), y), jnp.vdot(x, transposed(y)), rtol=1e-12)


# (spatial shape of what the convolution is given, positional arguments, options)
ADJOINTS = {
    "groups": ((7,), (4, 6, 3, 2), {"feature_group_count": 2}),
    "one sample over": ((8,), (4, 6, 3, 2), {"feature_group_count": 2, "output_padding": 1}),
    "padding": ((6, 7), (3, 2, (2, 3), (2, 3)), {"pads": (1, 2), "output_padding": (0, 2)}),
    "dilation": ((9, 7), (2, 4, (3, 2), (1, 2)), {"kernel_dilation": (2, 3), "output_padding": (0, 1)}),
    "depthwise volume": (
        (4, 5, 3),
        (4, 4, (2, 3, 1), (1, 3, 2)),
        {"feature_group_count": 4, "output_padding": [0, 2, 0], "pads": (1, 0, 0)},
    ),
}


@pytest.mark.parametrize("case", ADJOINTS)
def test_conv_transpose_is_the_adjoint_of_a_conv_of_groups(case: str) -> None:
    """In the layer's own kernel layout and with `transpose_kernel`, under both conventions, and through jax.lax.

    The output padding is how many of the convolution's samples its strides leave over.
    """
    shape, (in_features, out_features, kernel_size, *strides), options = ADJOINTS[case]
    groups = options.get("feature_group_count", 1)
    ndim = len(shape)
    kernel_size = (kernel_size,) if isinstance(kernel_size, int) else kernel_size
    pads, dilation = options.get("pads", (0,) * ndim), options.get("kernel_dilation", (1,) * ndim)
    common = {"use_bias": False, **MADE}
    conv = nnx.Conv(
        out_features,
        in_features,
        kernel_size,
        *strides,
        padding=[(p, p) for p in pads],
        kernel_dilation=dilation,
        feature_group_count=groups,
        **common,
    )
    y = values((2, *jax.eval_shape(conv, jnp.ones((2, *shape, out_features))).shape[1:]), seed=3)
    (expected,) = jax.linear_transpose(conv, jnp.ones((2, *shape, out_features)))(y)

    common |= {key: value for key, value in options.items() if key != "pads"}
    common["padding"] = [d * (k - 1) - p for k, d, p in zip(kernel_size, dilation, pads, strict=True)]
    kernel = conv.kernel[...]
    # The same weights as a kernel from in to out, by the definition of groups.
    parts = [part.swapaxes(-1, -2) for part in np.split(np.asarray(flipped(kernel)), groups, -1)]
    for convention in ("correlation", "convolution"):
        for function in (jaxconv.lax.conv_general_dilated, jax.lax.conv_general_dilated):
            if convention == "convolution" and function is jax.lax.conv_general_dilated:
                continue  # which has no such argument
            arguments = (in_features, out_features, kernel_size, *strides)
            choices = {"convention": convention, "conv_general_dilated": function, **common}
            adjoint = nn.ConvTranspose(*arguments, transpose_kernel=True, **choices)
            plain = nn.ConvTranspose(*arguments, **choices)
            assert plain.kernel.shape == (*kernel_size, in_features // groups, out_features)
            assert adjoint.kernel.shape == kernel.shape
            adjoint.kernel[...] = kernel if convention == "correlation" else flipped(kernel)
            forward = np.concatenate(parts, -1)
            plain.kernel[...] = forward if convention == "correlation" else flipped(forward)
            found = quick_jit(lambda y, layers=(adjoint, plain): [layer(y) for layer in layers])(y)
            for result in found:
                assert_close(result, expected, 1e-12)


def test_conv_transpose_output_padding_appends_outputs() -> None:
    """To what the padding alone gives, whatever its name; and Flax's padding in numbers says the same."""
    x = values((2, 5, 2))
    for padding in ("SAME", "VALID", 1):
        options = {"strides": 3, "padding": padding, **MADE}
        longer = nn.ConvTranspose(2, 4, 2, output_padding=2, **options)(x)
        shorter = nn.ConvTranspose(2, 4, 2, **options)(x)
        assert longer.shape[1] == shorter.shape[1] + 2
        np.testing.assert_array_equal(longer[:, :-2], shorter)
    assert_close(longer, nnx.ConvTranspose(2, 4, 2, **options | {"padding": ((1, 3),)})(x), 1e-12)


def test_conv_transpose_calls_the_given_function() -> None:
    """With Flax's arguments, and with a choice only where one was made."""
    calls = []

    def function(*arguments: Any, **options: Any) -> jax.Array:
        calls.append(options)
        return jaxconv.lax.conv_general_dilated(*arguments, **options)

    x = values((1, 4, 2))
    layer = nn.ConvTranspose(2, 3, 3, 2, conv_general_dilated=function, transpose_kernel=True, **MADE)
    assert_close(layer(x), nnx.ConvTranspose(2, 3, 3, 2, transpose_kernel=True, **MADE)(x), 1e-12)
    names = {"lhs_dilation", "rhs_dilation", "dimension_numbers", "feature_group_count", "precision"}
    assert calls.pop().keys() == names
    layer.convention, layer.method = "convolution", "xla"
    layer.kernel[...] = flipped(layer.kernel[...])
    assert_close(layer(x), nnx.ConvTranspose(2, 3, 3, 2, transpose_kernel=True, **MADE)(x), 1e-12)
    assert {key: calls[0][key] for key in calls[0].keys() - names} == {"convention": "convolution", "method": "xla"}


def test_conv_transpose_of_groups_under_transformations() -> None:
    """vmap over models inside scan, with gradients, against a loop."""
    options = {"feature_group_count": 2, "output_padding": 1, "convention": "convolution", **MADE}
    graphdef, params = nnx.split(nn.ConvTranspose(4, 2, 3, 2, **options))
    models = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)
    xs = values((3, 2, 1, 5, 4))

    def step(params: Any, x: jax.Array) -> Any:
        loss = lambda params: jnp.sum(jnp.sin(nnx.merge(graphdef, params)(x)))  # noqa: E731
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    found, _ = quick_jit(lambda models: jax.lax.scan(lambda m, x: (jax.vmap(step)(m, x), None), models, xs))(models)
    for i, rows in enumerate(jnp.moveaxis(xs, 1, 0)):
        expected = jax.tree.map(lambda p, i=i: p[i], models)
        for x in rows:
            expected = quick_jit(step)(expected, x)
        jax.tree.map(lambda f, e, i=i: np.testing.assert_allclose(f[i], e, rtol=1e-12), found, expected)


def test_conv_transpose_signature_and_initial_values() -> None:
    flax, ours = (inspect.signature(cls.__init__).parameters for cls in (nnx.ConvTranspose, nn.ConvTranspose))
    assert list(ours) == [
        *flax,
        "convention",
        "method",
        "feature_group_count",
        "output_padding",
        "conv_general_dilated",
    ]
    functions = {"kernel_init", "bias_init"}
    assert all(ours[name].kind is flax[name].kind for name in flax)
    assert all(ours[name].default == flax[name].default for name in flax.keys() - functions)
    layers = [cls(2, 3, 3, rngs=nnx.Rngs(7)) for cls in (nn.ConvTranspose, nnx.ConvTranspose)]
    jax.tree.map(np.testing.assert_array_equal, *map(nnx.state, layers))


def test_conv_transpose_of_four_axes_and_of_nothing() -> None:
    assert nn.ConvTranspose(1, 2, (1, 2, 1, 2), 2, **MADE)(jnp.ones((1, 2, 1, 2, 1, 1))).shape == (1, 4, 2, 4, 2, 2)
    layer = nn.ConvTranspose(1, 2, 3, 2, **MADE)
    assert layer(jnp.ones((0, 4, 1))).shape == (0, 8, 2)
    assert layer(jnp.ones((2, 0, 4, 1))).shape == (2, 0, 8, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"padding": "REFLECT"}, ValueError, r"'REFLECT' is unknown to transposed convolutions: .*'CIRCULAR', an int"),
        ({"padding": (1,)}, ValueError, r"padding must have one entry per spatial axis: got 1"),
        ({"padding": 0.5}, TypeError, r"padding must be an integer, got 0.5"),
        ({"strides": 0}, ValueError, r"strides must be positive, got 0"),
        ({"convention": "conv"}, ValueError, r"unknown convention 'conv'"),
        ({"method": "fast"}, ValueError, r"unknown method 'fast'"),
        ({"mask": np.ones((3, 3))}, ValueError, r"mask has shape \(3, 3\), but the kernel has \(3, 3, 2, 4\)"),
        ({"feature_group_count": 3}, ValueError, r"in_features=2 cannot .* feature_group_count=3 .* multiple is 3"),
        ({"feature_group_count": 0}, ValueError, r"feature_group_count must be positive, got 0"),
        ({"output_padding": 1}, ValueError, r"output_padding=1 must lie between 0 and 0 on axis 0, below its stride"),
        ({"output_padding": (0, 3), "strides": 3}, ValueError, r"between 0 and 2 on axis 1, below its stride \(3\)"),
        ({"output_padding": (0, -1), "strides": 3}, ValueError, r"output_padding=\(0, -1\) must lie .* as in torch"),
        ({"output_padding": (1,), "strides": 3}, ValueError, r"output_padding must have one entry per spatial axis"),
        ({"output_padding": "1"}, TypeError, r"output_padding must be an integer, got '1'"),
        (
            {"output_padding": 1, "strides": 2, "padding": "CIRCULAR"},
            ValueError,
            r"output_padding=1 contradicts padding='CIRCULAR'",
        ),
        ({"conv_general_dilated": "xla"}, TypeError, r"conv_general_dilated must be a function, got 'xla'"),
        ({"transpose_kernel": 1}, TypeError, r"transpose_kernel must be True or False, got 1"),
    ],
)
def test_conv_transpose_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.ConvTranspose(2, 4, (3, 3), **MADE | options)


def test_conv_transpose_rejects_inputs() -> None:
    layer = nn.ConvTranspose(2, 4, (3, 3), padding="CIRCULAR", **MADE)
    for shape, message in (
        ((4, 2), r"at least 3 axes"),
        ((4, 4, 3), r"last axis has 3 features .*in_features=2"),
        ((4, 0, 2), r"'CIRCULAR' needs an input of which no spatial axis is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(jnp.zeros(shape))
