"""Parameters of torch's layers, against vectors that torch computed (see make_torch_vectors.py) and torch itself."""

from __future__ import annotations

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxconv import nn

from .make_torch_vectors import FILE, LAYERS, NORMALISATIONS, compute, compute_normalisation

VECTORS = np.load(FILE)
HAS_TORCH = importlib.util.find_spec("torch") is not None


def sizes(value, ndim):
    return (value,) * ndim if isinstance(value, int) else value


def counterpart(name, flax=False, transpose_kernel=True, **convention):
    """The layer of jaxconv, or of Flax, with torch's geometry."""
    kind, options = LAYERS[name]
    ndim = int(kind[-2])
    kernel, dilation = sizes(options["kernel_size"], ndim), sizes(options.get("dilation", 1), ndim)
    pads = sizes(options.get("padding", 0), ndim)
    common = {
        "kernel_size": kernel,
        "strides": sizes(options.get("stride", 1), ndim),
        "kernel_dilation": dilation,
        "use_bias": options.get("bias", True),
        "param_dtype": jnp.float64,
        "rngs": nnx.Rngs(0),
        **convention,
    }
    module = nnx if flax else nn
    if kind.startswith("ConvTranspose"):
        more, groups = options.get("output_padding", 0), options.get("groups", 1)
        reach = [d * (k - 1) - p for k, d, p in zip(kernel, dilation, pads, strict=True)]
        if flax:  # which knows no output padding
            padding = [(r, r + extra) for r, extra in zip(reach, sizes(more, ndim), strict=True)]
        else:
            padding = reach
            common |= {"output_padding": more, "feature_group_count": groups}
        out = options["out_channels"]
        return module.ConvTranspose(4, out, padding=padding, transpose_kernel=transpose_kernel, **common)
    padding = [(p, p) for p in pads]
    groups = options.get("groups", 1)
    return module.Conv(4, options["out_channels"], padding=padding, feature_group_count=groups, **common)


def vectors_of(name):
    prefix = f"{name}/"
    return {key.removeprefix(prefix): VECTORS[key] for key in VECTORS if key.startswith(prefix)}


def check(layer, vectors):
    state = {key: value for key, value in vectors.items() if key not in ("x", "y")}
    y = nn.from_torch(state, layer)(jnp.moveaxis(vectors["x"], 1, -1))
    np.testing.assert_allclose(jnp.moveaxis(y, -1, 1), vectors["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_vectors(name):
    vectors = vectors_of(name)
    for convention in ("correlation", "convolution"):
        check(counterpart(name, convention=convention), vectors)
        if "transposed" in name:
            check(counterpart(name, convention=convention, transpose_kernel=False), vectors)
    if not ("transposed" in name and "groups" in LAYERS[name][1]):  # Flax's transposed layer knows no groups
        check(counterpart(name, flax=True), vectors)
    if HAS_TORCH:
        for key, value in compute(name).items():
            np.testing.assert_allclose(value, vectors[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations(name):
    common = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    layers = {
        "batch-norm": lambda: nnx.BatchNorm(4, use_running_average=True, **common),
        "group-norm": lambda: nnx.GroupNorm(4, 2, epsilon=1e-3, **common),
        "instance-norm": lambda: nnx.InstanceNorm(4, epsilon=1e-5, **common),
        "layer-norm": lambda: nnx.LayerNorm(4, epsilon=1e-5, use_bias=False, **common),
    }
    vectors = vectors_of(name)
    check(layers[name](), vectors)
    if HAS_TORCH:
        for key, value in compute_normalisation(name).items():
            np.testing.assert_allclose(value, vectors[key], rtol=1e-12, atol=1e-12)


class Model(nnx.Module):
    def __init__(self, norm=nnx.BatchNorm):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nn.Conv(1, 2, (2, 2), rngs=rngs), norm(2, rngs=rngs)])
        self.head = nnx.Linear(2, 3, rngs=rngs)


def state():
    rng = np.random.default_rng(0)
    shapes = {
        "layers.0.weight": (2, 1, 2, 2),
        "layers.0.bias": (2,),
        "layers.1.weight": (2,),
        "layers.1.bias": (2,),
        "layers.1.running_mean": (2,),
        "layers.1.running_var": (2,),
        "layers.1.num_batches_tracked": (),
        "head.weight": (3, 2),
        "head.bias": (3,),
    }
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def test_tree():
    given, original = state(), Model()
    before = np.array(original.head.kernel[...])
    model = nn.from_torch(given, original)
    np.testing.assert_array_equal(original.head.kernel[...], before)
    np.testing.assert_array_equal(model.layers[0].kernel[..., 0, 1], given["layers.0.weight"][1, 0].astype("float32"))
    np.testing.assert_array_equal(model.head.kernel[...], given["head.weight"].T.astype("float32"))
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for mine, theirs in names.items():
        value = getattr(model.layers[1], mine)
        np.testing.assert_array_equal(value[...], given[f"layers.1.{theirs}"].astype("float32"))


def test_bfloat16():
    """Which NumPy does not know."""
    torch = pytest.importorskip("torch")
    layer = nn.Conv(1, 2, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    tensors = {"weight": torch.rand(2, 1, 3, dtype=torch.bfloat16), "bias": torch.rand(2, dtype=torch.bfloat16)}
    kernel = nn.from_torch(tensors, layer).kernel[...]
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel[:, 0].T.astype("float32"), tensors["weight"][:, 0].float().numpy())


def test_rejections():
    given = state()
    with pytest.raises(ValueError, match=r"no 'head.bias', only 'head.weight', 'layers.0.bias'"):
        nn.from_torch({key: value for key, value in given.items() if key != "head.bias"}, Model())
    with pytest.raises(ValueError, match=r"no layer for 'tail.bias', 'tail.weight': remove"):
        nn.from_torch({**given, "tail.weight": 0, "tail.bias": 0}, Model())
    with pytest.raises(
        ValueError, match=r"'layers.0.weight' has shape \(1, 2, 2, 2\), but this Conv needs \(2, 1, 2, 2\)"
    ):
        nn.from_torch({**given, "layers.0.weight": np.zeros((1, 2, 2, 2))}, Model())
    with pytest.raises(ValueError, match=r"RMSNorm at 'layers.1' has parameters of its own, .*nnx.GroupNorm, nnx.Inst"):
        nn.from_torch(given, Model(nnx.RMSNorm))
    with pytest.raises(
        ValueError, match=r"LayerNorm at 'layers.1' has no parameter for 'layers.1.running_mean', only 'weight', 'bias'"
    ):
        nn.from_torch(given, Model(nnx.LayerNorm))
    with pytest.raises(ValueError, match=r"Conv at 'the top' has no parameter for 'bias', only 'weight': make it with"):
        nn.from_torch({"weight": np.zeros((1, 2, 3)), "bias": 0}, nn.Conv(2, 1, 3, use_bias=False, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"'weight' has shape \(4,\), but this GroupNorm needs \(6,\) there"):
        nn.from_torch({"weight": np.ones(4), "bias": np.ones(4)}, nnx.GroupNorm(6, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match=r"must be a flax.nnx.Module, got dict"):
        nn.from_torch(given, {})
    with pytest.raises(TypeError, match=r"state_dict must be a mapping from names to arrays, got list"):
        nn.from_torch([1], Model())
    with pytest.raises(TypeError, match=r"the names in state_dict must be strings, got 1"):
        nn.from_torch({1: 2}, Model())
