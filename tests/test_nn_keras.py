"""Parameters of Keras' layers, against vectors that Keras computed (see make_keras_vectors.py)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxconv import nn

from .make_keras_vectors import FILE, LAYERS, dimensions

VECTORS = np.load(FILE)


def counterpart(name, flax=False, transpose_kernel=True, **convention):
    """The layer of jaxconv, or of Flax, with Keras' geometry."""
    kind, options = LAYERS[name]
    ndim = dimensions(name)
    sizes = {"kernel_size": options["kernel_size"], "strides": options.get("strides", 1)}
    common = {
        **{key: (value,) * ndim if isinstance(value, int) else value for key, value in sizes.items()},
        "padding": options.get("padding", "valid").upper(),
        "kernel_dilation": options.get("dilation_rate", 1),
        "use_bias": options.get("use_bias", True),
        "param_dtype": jnp.float64,
        "rngs": nnx.Rngs(0),
        **convention,
    }
    module = nnx if flax else nn
    multiplier = options.get("depth_multiplier", 1)
    zeros = nnx.initializers.zeros  # compiles faster than random numbers
    if kind.startswith("Separable"):
        common |= {"depthwise_init": zeros, "pointwise_init": zeros}
        return nn.SeparableConv(4, options["filters"], depth_multiplier=multiplier, **common)
    common["kernel_init"] = zeros
    if kind.startswith("Depthwise") and not flax:
        return nn.DepthwiseConv(4, depth_multiplier=multiplier, **common)
    if kind.startswith("Depthwise"):
        return nnx.Conv(4, 4 * multiplier, feature_group_count=4, **common)
    if kind.endswith("Transpose"):
        return module.ConvTranspose(4, options["filters"], transpose_kernel=transpose_kernel, **common)
    return module.Conv(4, options["filters"], feature_group_count=options.get("groups", 1), **common)


def check(layer, vectors):
    weights = {key: value for key, value in vectors.items() if key not in ("x", "y")}
    y = nn.from_keras(weights, layer)(jnp.asarray(vectors["x"]))
    np.testing.assert_allclose(y, vectors["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_vectors(name):
    prefix = f"{name}/"
    vectors = {key.removeprefix(prefix): VECTORS[key] for key in VECTORS if key.startswith(prefix)}
    for convention in ("correlation", "convolution"):
        check(counterpart(name, convention=convention), vectors)
        if "transposed" in name:
            check(counterpart(name, convention=convention, transpose_kernel=False), vectors)
    if "separable" not in name:
        check(counterpart(name, flax=True), vectors)


class Model(nnx.Module):
    def __init__(self, norm=nnx.BatchNorm):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nn.DepthwiseConv(2, (2, 2), rngs=rngs), norm(2, rngs=rngs)])
        self.separable = nn.SeparableConv(2, 3, (2, 2), rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)


def weights():
    rng = np.random.default_rng(0)
    shapes = {
        "layers/0/depthwise_kernel:0": (2, 2, 2, 1),
        "layers/0/bias:0": (2,),
        "layers/1/gamma": (2,),
        "layers/1/beta": (2,),
        "layers/1/moving_mean": (2,),
        "layers/1/moving_variance": (2,),
        "separable/depthwise_kernel": (2, 2, 2, 1),
        "separable/pointwise_kernel": (1, 1, 2, 3),
        "separable/bias": (3,),
        "head/kernel": (3, 2),
        "head/bias": (2,),
    }
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_tree():
    given, original = weights(), Model()
    before = np.array(original.head.kernel[...])
    model = nn.from_keras(given, original)
    np.testing.assert_array_equal(original.head.kernel[...], before)
    expected = {
        (0, "kernel"): given["layers/0/depthwise_kernel:0"].reshape(2, 2, 1, 2),
        (0, "bias"): given["layers/0/bias:0"],
        (1, "scale"): given["layers/1/gamma"],
        (1, "bias"): given["layers/1/beta"],
        (1, "mean"): given["layers/1/moving_mean"],
        (1, "var"): given["layers/1/moving_variance"],
    }
    for (number, attribute), value in expected.items():
        np.testing.assert_array_equal(getattr(model.layers[number], attribute)[...], value.astype("float32"))
    np.testing.assert_array_equal(model.separable.pointwise.bias[...], given["separable/bias"].astype("float32"))
    np.testing.assert_array_equal(model.head.kernel[...], given["head/kernel"].astype("float32"))


@pytest.mark.parametrize("norm", [nnx.LayerNorm, lambda size, rngs: nnx.GroupNorm(size, 1, rngs=rngs)])
def test_other_normalisations(norm):
    given = {name: value for name, value in weights().items() if "moving" not in name}
    model = nn.from_keras(given, Model(norm))
    np.testing.assert_array_equal(model.layers[1].scale[...], given["layers/1/gamma"].astype("float32"))


def test_rejections():
    given = weights()
    with pytest.raises(ValueError, match=r"no 'head/bias', only 'head/kernel', 'layers/0/bias'"):
        nn.from_keras({key: value for key, value in given.items() if key != "head/bias"}, Model())
    with pytest.raises(ValueError, match=r"no 'layers/0/kernel' or 'layers/0/depthwise_kernel', only"):
        nn.from_keras({key: value for key, value in given.items() if "0/depthwise" not in key}, Model())
    with pytest.raises(ValueError, match=r"no layer for 'tail/bias', 'tail/kernel': remove"):
        nn.from_keras({**given, "tail/kernel": 0, "tail/bias": 0}, Model())
    with pytest.raises(ValueError, match=r"'head/kernel' has shape \(2, 3\), but this Linear needs \(3, 2\) there"):
        nn.from_keras({**given, "head/kernel": np.zeros((2, 3))}, Model())
    with pytest.raises(ValueError, match=r"needs \(2, 2, 1, 2\) or \(2, 2, 2, 1\) there, for a kernel of shape"):
        nn.from_keras({**given, "layers/0/depthwise_kernel:0": np.zeros((2, 2, 4))}, Model())
    with pytest.raises(ValueError, match=r"'head/bias' is complex128, but the bias of this Linear is float32: make"):
        nn.from_keras({**given, "head/bias": np.ones(2) * 1j}, Model())
    with pytest.raises(ValueError, match=r"RMSNorm at 'layers/1' has parameters of its own"):
        nn.from_keras(given, Model(nnx.RMSNorm))
    layer = nn.ConvTranspose(2, 2, 3, feature_group_count=2, use_bias=False, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"a transposed layer with 2 groups: Keras has no such layer"):
        nn.from_keras({"kernel": np.zeros((3, 2, 2))}, layer)
    with pytest.raises(TypeError, match=r"must be a flax.nnx.Module, got dict"):
        nn.from_keras(given, {})
