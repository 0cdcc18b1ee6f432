"""The layers beyond `Conv`, and boundaries: against flax.nnx with the same parameters, and against scipy.ndimage."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxconv import nn
from jaxconv._boundary import BOUNDARIES

from .test_nn import MADE, assert_close, flipped, initial, quick_jit, values


def outcomes(layer: nnx.Module, x: jax.Array) -> Any:
    """The result, its gradients with respect to the parameters and to the input."""
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    @quick_jit
    def run(params: Any, x: jax.Array) -> Any:
        result, pullback = jax.vjp(lambda params, x: nnx.merge(graphdef, params, rest)(x), params, x)
        return result, *pullback(jnp.cos(jnp.arange(result.size, dtype=result.dtype)).reshape(result.shape))

    return run(params, x)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("taps", [(3, 5), (2, 4), (7, 1)], ids=str)
def test_conv_with_boundary_matches_scipy(taps: tuple[int, int], boundary: str) -> None:
    """Odd and even kernels, and one longer than the axis."""
    x, w = np.asarray(values((3, 6))), np.asarray(values(taps, seed=1))
    for convention, padding in (("correlation", "SAME_LOWER"), ("convolution", "SAME")):
        options = {"convention": convention, "padding": padding, "boundary": boundary, "use_bias": False}
        layer = nn.Conv(1, 1, taps, **MADE | options, method="xla")
        layer.kernel[...] = w[..., None, None]
        function = scipy.ndimage.correlate if convention == "correlation" else scipy.ndimage.convolve
        expected = function(x, w, mode=boundary)
        np.testing.assert_allclose(layer(x[..., None])[..., 0], expected, atol=1e-12)


def test_conv_with_one_boundary_for_each_axis_matches_scipy() -> None:
    x, rows, columns = (np.asarray(values(shape)) for shape in ((3, 6), (5,), (3,)))
    layer = nn.Conv(1, 1, (5, 3), boundary=("grid-wrap", "mirror"), use_bias=False, **MADE)
    layer.kernel[...] = np.outer(rows, columns)[..., None, None]
    expected = scipy.ndimage.correlate1d(x, rows, 0, mode="wrap")
    expected = scipy.ndimage.correlate1d(expected, columns, 1, mode="mirror")
    np.testing.assert_allclose(layer(x[..., None])[..., 0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("boundary", "padding"), [("wrap", "CIRCULAR"), ("mirror", "REFLECT"), ("constant", "SAME")], ids=str
)
def test_conv_with_boundary_matches_flax(boundary: str, padding: str) -> None:
    """Values and gradients, for odd kernels and a dilated one, where Flax has the same boundary by another name."""
    x = values((2, 7, 6, 2))
    options = {"kernel_dilation": (1, 2), **MADE}
    found = outcomes(nn.Conv(2, 3, (3, 3), boundary=boundary, **options), x)
    assert_close(found, outcomes(nnx.Conv(2, 3, (3, 3), padding=padding, **options), x), 1e-12)


def test_conv_with_boundary_and_strides_samples_as_same() -> None:
    """Strides keep the positions of padding="SAME": away from the ends nothing changes, at the ends the extension."""
    x = values((1, 9, 2))
    layer = nn.Conv(2, 3, 5, 3, boundary="nearest", **MADE)
    padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0)], mode="edge")
    assert_close(layer(x), nnx.Conv(2, 3, 5, 3, padding="VALID", **MADE)(padded), 1e-12)
    assert_close(layer(x)[:, 1], nnx.Conv(2, 3, 5, 3, **MADE)(x)[:, 1], 1e-12)


def test_boundary_may_be_set() -> None:
    x = values((1, 6, 2))
    layer = nn.Conv(2, 3, 3, **MADE)
    zeros = layer(x)
    layer.boundary = "reflect"
    assert not np.allclose(layer(x), zeros)
    layer.padding = "VALID"
    with pytest.raises(ValueError, match="boundary='reflect' contradicts padding='VALID'"):
        layer(x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"boundary": "circular"}, ValueError, r"unknown boundary 'circular': .*perhaps 'wrap'"),
        ({"boundary": ["wrap"]}, ValueError, r"one for each of 2 axes: got 1"),
        ({"boundary": 1}, TypeError, r"boundary must be a name, .*got 1"),
        ({"boundary": "wrap", "padding": "VALID"}, ValueError, r"boundary='wrap' contradicts padding='VALID'.*'SAME'"),
        ({"boundary": "wrap", "padding": "CIRCULAR"}, ValueError, r"contradicts padding='CIRCULAR'"),
        ({"boundary": "wrap", "padding": 1}, ValueError, r"contradicts padding=\(\(1, 1\), \(1, 1\)\)"),
        ({"boundary": "wrap", "input_dilation": 2}, ValueError, r"padding='SAME' has no meaning with input_dilation=2"),
    ],
)
def test_boundary_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv(3, 4, (3, 3), **MADE | options)


def test_depthwise_conv_matches_flax() -> None:
    x = values((2, 7, 5, 3))
    options = {"kernel_dilation": (2, 1), "padding": "VALID", **MADE}
    expected = nnx.Conv(3, 6, (3, 2), (1, 2), feature_group_count=3, **options)
    assert_close(
        outcomes(nn.DepthwiseConv(3, (3, 2), (1, 2), depth_multiplier=2, **options), x), outcomes(expected, x), 1e-12
    )


def test_separable_conv_matches_flax() -> None:
    x = values((2, 9, 3))
    inits = {"depthwise_init": initial, "pointwise_init": initial, "bias_init": initial}
    options = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    ours = nn.SeparableConv(3, 4, 3, 2, depth_multiplier=2, boundary="wrap", **inits, **options)
    depthwise = nnx.Conv(3, 6, 3, 2, feature_group_count=3, use_bias=False, padding="VALID", **MADE)
    pointwise = nnx.Conv(6, 4, 1, **MADE)
    # SAME pads nine samples by one at both ends, for stride 2.
    expected = lambda x: pointwise(depthwise(jnp.pad(x, [(0, 0), (1, 1), (0, 0)], mode="wrap")))  # noqa: E731
    assert_close(ours(x), expected(x), 1e-12)
    convolution = nn.SeparableConv(3, 4, 3, 2, depth_multiplier=2, convention="convolution", **inits, **options)
    convolution.depthwise.kernel[...] = jnp.flip(convolution.depthwise.kernel[...], 0)
    convolution.depthwise.boundary = "wrap"
    assert_close(convolution(x), expected(x), 1e-12)


@pytest.mark.parametrize("convention", ["correlation", "convolution"])
def test_fixed_filter_matches_scipy(convention: str) -> None:
    x, w = np.asarray(values((2, 5, 6, 3))), np.asarray(values((3, 5), seed=1))
    layer = nn.FixedFilter(w, convention=convention, boundary=("nearest", "wrap"))
    function = scipy.ndimage.correlate if convention == "correlation" else scipy.ndimage.convolve
    padded = np.pad(np.pad(x, [(0, 0), (2, 2), (0, 0), (0, 0)], "edge"), [(0, 0), (0, 0), (4, 4), (0, 0)], "wrap")
    found = outcomes(layer, jnp.asarray(x))
    for image, feature in ((0, 0), (1, 2)):
        expected = function(padded[image, ..., feature], w)[2:-2, 4:-4]
        np.testing.assert_allclose(found[0][image, ..., feature], expected, atol=1e-12)
    # The input's gradient is the adjoint: <A x, g> = <x, A' g>.
    g = np.cos(np.arange(x.size)).reshape(x.shape)
    np.testing.assert_allclose(np.vdot(found[0], g), np.vdot(x, found[2]), rtol=1e-10)


def test_fixed_filter_is_not_trained() -> None:
    model = nnx.Sequential(nn.FixedFilter(np.ones(3)), nn.Conv(2, 2, 3, **MADE))
    parameters = nnx.state(model, nnx.Param)
    assert len(jax.tree.leaves(parameters)) == 2
    assert len(jax.tree.leaves(nnx.state(model))) == 3
    for shape in ((4, 2), (2, 3, 4, 2)):
        assert model(jnp.ones(shape)).shape == shape
    assert model.layers[0](jnp.ones((4, 2), jnp.int32)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.DepthwiseConv(0, 3, **MADE), r"in_features must be positive, got 0"),
        (lambda: nn.DepthwiseConv(2, 3, depth_multiplier=0, **MADE), r"depth_multiplier must be positive, got 0"),
        (lambda: nn.SeparableConv(2, 0, 3, rngs=nnx.Rngs(0)), r"out_features must be positive, got 0"),
        (lambda: nn.FixedFilter(2.0), r"an axis for each spatial axis, none empty, got shape \(\)"),
        (lambda: nn.FixedFilter(np.ones(3), padding="VALID", boundary="wrap"), r"boundary='wrap' contradicts"),
        (lambda: nn.FixedFilter(np.ones((3, 3)))(jnp.ones((4, 2))), r"needs an input of at least 3 axes.*\(4, 2\)"),
    ],
)
def test_layers_reject(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


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


def test_conv_transpose_signature_and_initial_values() -> None:
    flax, ours = (inspect.signature(cls.__init__).parameters for cls in (nnx.ConvTranspose, nn.ConvTranspose))
    assert list(ours) == [*flax, "convention", "method"]
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


def test_fixed_filter_keeps_an_explicit_sharding(two_devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,), devices=two_devices)
    x, w = values((4, 6, 2)), values((3,), seed=1)
    expected = np.asarray(nn.FixedFilter(w)(x))
    with jax.set_mesh(mesh):
        found = nn.FixedFilter(w)(jax.device_put(x, NamedSharding(mesh, P("batch"))))
        assert found.sharding.spec == P("batch", None, None)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)
