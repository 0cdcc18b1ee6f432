"""Wrong arguments of the layers: the message names the argument, what it is, and what it should have been."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxconv import nn

LAYERS = {
    "Conv": lambda **options: nn.Conv(**{"in_features": 4, "out_features": 6, "kernel_size": (3, 3)} | options),
    "ConvTranspose": lambda **options: nn.ConvTranspose(
        **{"in_features": 4, "out_features": 6, "kernel_size": (3, 3)} | options
    ),
    "DepthwiseConv": lambda **options: nn.DepthwiseConv(**{"in_features": 4, "kernel_size": (3, 3)} | options),
    "SeparableConv": lambda **options: nn.SeparableConv(
        **{"in_features": 4, "out_features": 6, "kernel_size": (3, 3)} | options
    ),
}


def wrong_shape(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.zeros((*shape, 1), dtype)


# Of every layer that takes them.
COMMON = [
    ({"in_features": "4"}, TypeError, r"in_features must be an integer, got '4' of type str"),
    ({"in_features": 0}, ValueError, r"in_features must be positive, got 0"),
    ({"kernel_size": ()}, ValueError, r"kernel_size is empty: .* or use flax.nnx.Linear for none"),
    ({"kernel_size": (3, 0)}, ValueError, r"kernel_size\[1\] must be positive, got 0"),
    ({"kernel_size": 3.0}, TypeError, r"kernel_size must be an integer or a sequence of integers, .* got 3.0"),
    ({"kernel_size": None}, TypeError, r"kernel_size must be an integer or a sequence of integers, .* got None"),
    ({"strides": "2"}, TypeError, r"strides must be an integer, got '2' .*sequence of one per spatial axis \(2\)"),
    ({"strides": np.array([1, 2, 3])}, ValueError, r"strides must have one entry per spatial axis: got 3"),
    ({"strides": (1, 1.5)}, TypeError, r"strides\[1\] must be an integer, got 1.5 of type float"),
    ({"padding": None}, TypeError, r"padding must be an integer, got None .*or one of 'SAME', .*pairs \(low, high\)"),
    ({"padding": "full"}, ValueError, r"'full'.* choose one of 'SAME', .*an integer, or for each spatial axis"),
    ({"use_bias": "no"}, TypeError, r"use_bias must be True or False, got 'no'"),
    ({"dtype": "float31"}, TypeError, r"dtype must be a dtype, such as jax.numpy.float32, got 'float31'"),
    ({"dtype": jnp.int32}, TypeError, r"dtype must be real or complex floating point, .*got int32"),
    ({"padding": "same_low"}, ValueError, r"'same_low'.*\(low, high\), perhaps 'SAME"),
    ({"param_dtype": int}, TypeError, r"param_dtype must be real or complex floating point, .*got int64"),
    ({"param_dtype": None}, TypeError, r"param_dtype must be a dtype, such as jax.numpy.float32, got None"),
    ({"preferred_element_type": "f"}, None, None),
    ({"preferred_element_type": "real"}, TypeError, r"preferred_element_type must be a dtype, .*got 'real'"),
    ({"bias_init": 0.0}, TypeError, r"bias_init must be an initialiser, a function \(key, shape, dtype\), got 0.0"),
    ({"promote_dtype": 1}, TypeError, r"promote_dtype must be a function, got 1"),
    ({"conv_general_dilated": None}, TypeError, r"conv_general_dilated must be a function, got None"),
    ({"bias_metadata": ("a",)}, TypeError, r"bias_metadata must be a mapping .*got \('a',\)"),
    ({"rngs": 0}, TypeError, r"rngs must be random keys of Flax, such as flax.nnx.Rngs\(0\), got 0"),
    ({"rngs": nnx.Rngs(dropout=0)}, ValueError, r"rngs has neither a stream 'params' nor a default one"),
    ({"convention": "conv"}, ValueError, r"unknown convention 'conv': choose one of 'correlation', 'convolution'"),
    ({"convention": "Convolution"}, ValueError, r"'convolution', perhaps 'convolution'$"),
    ({"method": "fast"}, ValueError, r"unknown method 'fast': choose one of 'auto', 'direct'"),
    ({"method": "overlap-save"}, ValueError, r"unknown method 'overlap-save'.* perhaps 'overlap'"),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_common_arguments(layer: str) -> None:
    for options, error, message in COMMON:
        if layer == "DepthwiseConv" and "use_bias" in options:
            options = options | {"depth_multiplier": 2}
        options = {"rngs": nnx.Rngs(0)} | options
        if error is None:
            LAYERS[layer](**options)
        else:
            with pytest.raises(error, match=message):
                LAYERS[layer](**options)


@pytest.mark.parametrize(
    ("layer", "options", "error", "message"),
    [
        ("Conv", {"kernel_init": "lecun"}, TypeError, r"kernel_init must be an initialiser, .*got 'lecun'"),
        (
            "Conv",
            {"kernel_init": wrong_shape},
            ValueError,
            r"kernel_init returned shape \(3, 3, 4, 6, 1\), .*asked for",
        ),
        (
            "Conv",
            {"bias_init": wrong_shape},
            ValueError,
            r"bias_init returned shape \(6, 1\), but was asked for \(6,\)",
        ),
        ("Conv", {"kernel_metadata": 3}, TypeError, r"kernel_metadata must be a mapping .*got 3"),
        ("Conv", {"feature_group_count": 3}, ValueError, r"in_features=4 .*=3 groups: the nearest multiple is 3 or 6"),
        ("Conv", {"feature_group_count": 8}, ValueError, r"in_features=4 .*=8 groups: the nearest multiple is 8"),
        ("Conv", {"mask": [[1, 0]]}, TypeError, r"mask must be an array of the kernel's shape, \(3, 3, 4, 6\)"),
        ("Conv", {"mask": np.ones((3, 3))}, ValueError, r"but the kernel has \(3, 3, 4, 6\): .*jax.numpy.broadcast_to"),
        (
            "ConvTranspose",
            {"mask": np.ones((3, 3, 4, 6)), "transpose_kernel": True},
            ValueError,
            r"has \(3, 3, 6, 4\): \(\*kernel_size, out_features // feature_group_count, in_features\)",
        ),
        ("ConvTranspose", {"kernel_init": wrong_shape}, ValueError, r"kernel_init returned shape \(3, 3, 4, 6, 1\)"),
        ("DepthwiseConv", {"depth_multiplier": 0}, ValueError, r"depth_multiplier must be positive, got 0"),
        ("DepthwiseConv", {"out_features": 8}, TypeError, r"takes no out_features, which follows from"),
        ("DepthwiseConv", {"feature_group_count": 2}, TypeError, r"takes no feature_group_count"),
        ("SeparableConv", {"out_features": 0}, ValueError, r"out_features must be positive, got 0"),
        ("SeparableConv", {"depthwise_init": 1}, TypeError, r"depthwise_init must be an initialiser"),
        ("SeparableConv", {"pointwise_metadata": 1}, TypeError, r"pointwise_metadata must be a mapping"),
        (
            "SeparableConv",
            {"depthwise_mask": np.ones((3, 3))},
            ValueError,
            r"depthwise_mask has shape \(3, 3\), but the kernel has \(3, 3, 1, 4\): .*depth_multiplier\)",
        ),
        (
            "SeparableConv",
            {"pointwise_mask": np.ones((4, 6))},
            ValueError,
            r"pointwise_mask has shape \(4, 6\), but the kernel has \(1, 1, 4, 6\)",
        ),
    ],
)
def test_arguments_of_one_layer(layer: str, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LAYERS[layer](**{"rngs": nnx.Rngs(0)} | options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.FixedFilter(2.0), ValueError, r"an axis for each spatial axis, none empty, got shape \(\)"),
        (lambda: nn.FixedFilter(None), TypeError, r"the kernel must be an array, got one of type NoneType"),
        (lambda: nn.FixedFilter(np.ones((3, 0))), ValueError, r"none empty, got shape \(3, 0\)"),
        (
            lambda: nn.FixedFilter(np.ones(3), use_bias=True),
            TypeError,
            r"FixedFilter takes no use_bias: it filters every",
        ),
        (lambda: nn.FixedFilter(np.ones(3), rngs=0, mask=1), TypeError, r"FixedFilter takes no mask, rngs"),
        (
            lambda: nn.FixedFilter(np.ones(3), padding="VALID", boundary="wrap"),
            ValueError,
            r"boundary='wrap' contradicts",
        ),
    ],
)
def test_arguments_of_fixed_filters(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("layer", [*LAYERS, "FixedFilter"])
def test_inputs(layer: str) -> None:
    """The same words from every layer, eagerly and traced; lists are arrays too."""
    fixed = layer == "FixedFilter"
    module = nn.FixedFilter(np.ones((3, 3))) if fixed else LAYERS[layer](rngs=nnx.Rngs(0))
    cases = [((4, 4), r"a layer with kernel_size=\(3, 3\) needs an input of at least 3 axes, .*got shape \(4, 4\)")]
    if not fixed:
        cases.append(
            ((2, 4, 5, 5), r"last axis has 5 features .*features come last, jax.numpy.moveaxis\(inputs, -3, -1\)")
        )
        cases.append(((2, 5, 5, 3), r"last axis has 3 features .*in_features=4: the features come last(?!,)"))
    for shape, message in cases:
        for call in (module, jax.jit(module)):
            with pytest.raises(ValueError, match=message):
                call(jnp.zeros(shape))
    assert module(np.ones((3, 3, 4)).tolist()).shape == module(np.ones((3, 3, 4))).shape
    for value, message in (
        (None, r"the input must be an array, got one of type NoneType"),
        (jax.ShapeDtypeStruct((3, 3, 4), "float32"), r"the input must be an array, got one of type ShapeDtypeStruct"),
        (np.full((3, 3, 4), "1"), r"the input must be an array of numbers, got one of dtype <U1, shape \(3, 3, 4\)"),
        (jax.random.split(jax.random.key(0), (3, 3, 4)), r"must be an array of numbers, got one of dtype key<fry>"),
    ):
        with pytest.raises(TypeError, match=message):
            module(value)


def test_numpy_integers_and_arrays_are_sizes() -> None:
    layer = nn.Conv(
        np.int64(2),
        3,
        np.array([3, 1]),
        strides=jnp.array([1, 2]),
        padding=np.array([[1, 1], [0, 0]]),
        rngs=nnx.Rngs(0),
    )
    assert (layer.kernel_size, layer.strides, layer.padding) == ((3, 1), (1, 2), ((1, 1), (0, 0)))
    assert layer(jnp.ones((4, 4, 2))).shape == (4, 2, 3)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 3, 3, 4), (0, 3, 3, 4)], ids=str)
def test_empty_inputs(shape: tuple[int, ...]) -> None:
    for make in LAYERS.values():
        module = make(rngs=nnx.Rngs(0))
        y = module(jnp.zeros(shape))
        assert y.shape[:-1] == shape[:-1]


def test_strides_that_were_set() -> None:
    layer = LAYERS["ConvTranspose"](rngs=nnx.Rngs(0))
    for strides, message in (((1, 2, 3), r"strides must have one entry per spatial axis: got 3"), (-1, r"got -1")):
        layer.strides = strides
        with pytest.raises(ValueError, match=message):
            layer(jnp.ones((3, 3, 4)))
