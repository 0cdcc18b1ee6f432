"""The layers beyond `Conv`, and boundaries: against flax.nnx with the same parameters, and against scipy.ndimage."""

from __future__ import annotations

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

from .test_nn import MADE, assert_close, initial, quick_jit, values


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


# Of (2, 6, 5, 2), per spatial axis: NumPy's mode, and (low, high), negative to crop.
PADDED = {
    "numbers": ((("edge", (2, 1)), ("edge", (0, 3))), {"padding": ((2, 1), (0, 3)), "boundary": "nearest"}),
    "longer than the axis": ((("wrap", (7, 7)), ("wrap", (7, 7))), {"padding": 7, "boundary": "wrap"}),
    "cropped behind what is added": (
        (("symmetric", (-1, 4)), ("reflect", (2, -2))),
        {"padding": ((-1, 4), (2, -2)), "boundary": ("reflect", "mirror")},
    ),
    "constant": (
        ((("constant", 2.5), (1, 1)), (("constant", 2.5), (1, 1))),
        {"boundary": "constant", "cval": np.float32(2.5)},
    ),
    "constant on one axis": (
        ((("constant", -1), (3, 0)), ("wrap", (0, 2))),
        {"padding": ((3, 0), (0, 2)), "boundary": ("grid-constant", "wrap"), "cval": -1},
    ),
    "nothing": ((("wrap", (0, 0)), ("wrap", (0, 0))), {"padding": 0, "boundary": "wrap"}),
}


@pytest.mark.parametrize("case", PADDED)
def test_boundary_with_numbers_and_values(case: str) -> None:
    """Values and gradients equal those of Flax's layer on an input that NumPy's rules have extended."""
    axes, options = PADDED[case]
    x = values((2, 6, 5, 2))

    def padded(x: jax.Array) -> jax.Array:
        for axis, (mode, widths) in enumerate(axes, start=1):
            mode, more = (mode[0], {"constant_values": mode[1]}) if isinstance(mode, tuple) else (mode, {})
            added = [(0, 0)] * 4
            added[axis] = tuple(max(width, 0) for width in widths)
            x = jnp.pad(x, added, mode, **more)
            x = jax.lax.slice_in_dim(x, max(-widths[0], 0), x.shape[axis] + min(widths[1], 0), axis=axis)
        return x

    class Reference(nnx.Conv):
        def __call__(self, x: jax.Array) -> jax.Array:
            return super().__call__(padded(x))

    found = outcomes(nn.Conv(2, 3, (3, 3), **options, **MADE), x)
    assert_close(found, outcomes(Reference(2, 3, (3, 3), padding="VALID", **MADE), x), 1e-12)


@pytest.mark.parametrize("convention", ["correlation", "convolution"])
def test_causal_boundary(convention: str) -> None:
    """The first sample, or a value, stands for all earlier ones; no output depends on a later input."""
    x = values((2, 6, 2))
    options = {"padding": "CAUSAL", "kernel_dilation": 2, "convention": convention, **MADE}
    for boundary, cval, mode in (("nearest", 0, "edge"), ("constant", 3, "constant")):
        layer = nn.Conv(2, 3, 3, boundary=boundary, cval=cval, **options)
        more = {} if mode == "edge" else {"constant_values": cval}
        before = jnp.pad(x, [(0, 0), (4, 0), (0, 0)], mode, **more)
        assert_close(layer(x), nn.Conv(2, 3, 3, **options | {"padding": "VALID"})(before), 1e-12)
        np.testing.assert_array_equal(layer(x.at[:, 3:].set(jnp.nan))[:, :3], layer(x)[:, :3])


def test_complex_cval_of_a_real_layer() -> None:
    options = {"boundary": "constant", "cval": 1j, "kernel_init": initial, "rngs": nnx.Rngs(0)}
    with pytest.raises(ValueError, match=r"cval=1j is complex, but the computation is in float64"):
        nn.Conv(2, 3, 3, param_dtype=jnp.float64, **options)(jnp.ones((4, 2)))
    x = nn.FixedFilter(np.ones(3), boundary="constant", cval=1j)(jnp.zeros((2, 1), complex))
    np.testing.assert_array_equal(x[:, 0], [1j, 1j])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"boundary": "circular"}, ValueError, r"unknown boundary 'circular': .*perhaps 'wrap'"),
        ({"boundary": ["wrap"]}, ValueError, r"one for each of 2 axes: got 1"),
        ({"boundary": 1}, TypeError, r"boundary must be a name, .*got 1"),
        ({"boundary": "wrap", "padding": "VALID"}, ValueError, r"boundary='wrap' contradicts padding='VALID'.*'SAME'"),
        (
            {"boundary": "wrap", "padding": "REFLECT"},
            ValueError,
            r"contradicts .* \(padding='REFLECT' is boundary='mirror' with padding='SAME'\)",
        ),
        ({"boundary": "wrap", "input_dilation": 2}, ValueError, r"padding='SAME' has no meaning with input_dilation=2"),
        (
            {"boundary": "wrap", "input_dilation": (1, 2), "padding": 1},
            ValueError,
            r"boundary='wrap' has no meaning with input_dilation=\(1, 2\)",
        ),
        (
            {"boundary": "reflect", "padding": "CAUSAL", "kernel_size": 3},
            ValueError,
            r"boundary='reflect' is not causal.*choose 'constant' or 'nearest'.*padding=\(\(low, 0\),\)",
        ),
        ({"cval": 1}, ValueError, r"cval=1 has no effect without a boundary: give boundary='constant'"),
        (
            {"cval": 1, "boundary": "wrap"},
            ValueError,
            r"cval=1 is the value .* boundary 'constant', but boundary='wrap'",
        ),
        ({"cval": "1", "boundary": "constant"}, TypeError, r"cval must be a number, got '1'"),
    ],
)
def test_boundary_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv(3, 4, **{"kernel_size": (3, 3)} | MADE | options)


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


def test_separable_conv_of_masks_metadata_and_types() -> None:
    """As the two layers of Flax with the same options; the function is called for both."""
    x = values((2, 8, 3))
    masks = np.tri(3)[:, None, :].repeat(2, -1), np.tri(6, 4)[None]
    calls = []

    def function(*arguments: Any, **options: Any) -> jax.Array:
        calls.append(options["feature_group_count"])
        return jax.lax.conv_general_dilated(*arguments, **options)

    shared = {"dtype": jnp.bfloat16, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0), "precision": "highest"}
    shared["preferred_element_type"] = jnp.float32
    ours = nn.SeparableConv(
        3,
        4,
        3,
        depth_multiplier=2,
        depthwise_mask=masks[0],
        pointwise_mask=masks[1],
        depthwise_metadata={"note": 1},
        pointwise_metadata={"note": 2},
        bias_metadata={"note": 3},
        padding=2,
        input_dilation=2,
        conv_general_dilated=function,
        depthwise_init=initial,
        pointwise_init=initial,
        bias_init=initial,
        **shared,
    )
    inits = {"kernel_init": initial, "bias_init": initial}
    depthwise = nnx.Conv(
        3,
        6,
        3,
        feature_group_count=3,
        use_bias=False,
        padding=2,
        input_dilation=2,
        mask=masks[0],
        kernel_metadata={"note": 1},
        **inits,
        **shared,
    )
    pointwise = nnx.Conv(
        6, 4, 1, mask=masks[1], kernel_metadata={"note": 2}, bias_metadata={"note": 3}, **inits, **shared
    )
    assert ours.depthwise.kernel.get_metadata() == depthwise.kernel.get_metadata()
    assert ours.pointwise.kernel.get_metadata() == pointwise.kernel.get_metadata()
    assert ours.pointwise.bias.get_metadata() == pointwise.bias.get_metadata()
    y = ours(x)
    assert y.dtype == jnp.float32
    assert calls == [3, 1]
    assert_close(y, pointwise(depthwise(x)), 2e-6)


def test_separable_conv_shards_its_kernels(two_devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,), devices=two_devices)
    features = {"out_sharding": (None, None, "model")}
    with jax.set_mesh(mesh):
        layer = nn.SeparableConv(
            2, 4, 3, depthwise_metadata=features, pointwise_metadata=features, bias_init=initial, rngs=nnx.Rngs(0)
        )
        for kernel in (layer.depthwise.kernel, layer.pointwise.kernel):
            assert kernel[...].sharding.spec == P(None, None, "model")
        assert jax.jit(layer)(jnp.ones((2, 5, 2))).shape == (2, 5, 4)


def test_separable_conv_keeps_an_explicit_sharding(two_devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,), devices=two_devices)
    x, options = values((4, 6, 2)), {"boundary": "constant", "cval": 2, "rngs": nnx.Rngs(0)}
    options |= {"depthwise_init": initial, "pointwise_init": initial, "param_dtype": jnp.float64}
    expected = np.asarray(nn.SeparableConv(2, 3, 3, **options)(x))
    with jax.set_mesh(mesh):
        layer = nn.SeparableConv(2, 3, 3, **options)
        x = jax.device_put(x, NamedSharding(mesh, P("batch")))
        for sharding in (P("batch", None, None), P(None, None, None)):
            found = layer(x, out_sharding=sharding)
            assert found.sharding.spec == sharding
            np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)


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


def test_fixed_filter_keeps_an_explicit_sharding(two_devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,), devices=two_devices)
    x, w = values((4, 6, 2)), values((3,), seed=1)
    expected = np.asarray(nn.FixedFilter(w)(x))
    with jax.set_mesh(mesh):
        found = nn.FixedFilter(w)(jax.device_put(x, NamedSharding(mesh, P("batch"))))
        assert found.sharding.spec == P("batch", None, None)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)
