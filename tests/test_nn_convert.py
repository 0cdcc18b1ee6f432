"""Modules that change convention compute the same function."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax import numpy as jnp

from jaxconv import nn

OTHER = {"correlation": "convolution", "convolution": "correlation"}


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


class Tree(nnx.Module):
    def __init__(self, convention):
        rngs = nnx.Rngs(0)
        options = {"param_dtype": jnp.float64, "rngs": rngs}
        ours = {**options, "convention": convention}
        mask = normal(2, 3, 4, 4)
        self.layers = nnx.List([nn.Conv(2, 4, (2, 3), **ours), nnx.Conv(4, 4, (2, 3), **options)])
        self.shared = nn.Conv(4, 4, (2, 3), mask=mask, **ours)
        self.layers.append(self.shared)
        self.tied = nn.Conv(4, 4, (2, 3), **ours)
        self.tied.kernel = self.shared.kernel
        self.separable = nn.SeparableConv(4, 4, (2, 3), strides=2, **ours)
        self.up = nn.ConvTranspose(4, 2, (2, 3), 2, transpose_kernel=True, **ours)

    def __call__(self, x):
        for layer in (*self.layers, self.shared, self.tied, self.separable, self.up):
            x = layer(x)
        return x


@pytest.mark.parametrize("convention", OTHER)
def test_same_function_and_original_unchanged(convention):
    model, x = Tree(convention), normal(1, 4, 6, 2)
    before, expected = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model))), model(x)
    other = nn.with_convention(model, OTHER[convention])
    np.testing.assert_allclose(other(x), expected, rtol=1e-12, atol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model)))
    assert model.shared.convention == convention
    assert other.shared.convention == OTHER[convention]
    assert other.layers[2] is other.shared
    assert other.tied.kernel is other.shared.kernel
    np.testing.assert_array_equal(other.tied.kernel[...], model.tied.kernel[::-1, ::-1])
    np.testing.assert_array_equal(other.layers[1].kernel[...], model.layers[1].kernel[...])


def test_stacked_models():
    """Their kernels have an axis more: to be converted one by one, and never to be reversed along the wrong axes."""

    @nnx.vmap
    def build(key):
        return nn.Conv(2, 3, (2, 3), rngs=nnx.Rngs(key))

    models, x = build(jax.random.split(jax.random.key(0), 2)), normal(1, 4, 5, 2)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 3, 2, 3\), not 4 axes .* inside nnx.vmap"):
        nn.with_convention(models, "convolution")
    others = nnx.vmap(lambda model: nn.with_convention(model, "convolution"))(models)
    apply = nnx.vmap(lambda model: model(x))
    np.testing.assert_allclose(apply(others), apply(models), rtol=1e-5, atol=1e-6)


def test_same_convention_changes_nothing():
    model = Tree("convolution")
    same = nn.with_convention(model, "convolution")
    assert same is not model
    jax.tree.map(np.testing.assert_array_equal, nnx.state(same), nnx.state(model))


def test_errors():
    layer = nn.Conv(1, 1, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="convention"):
        nn.with_convention(layer, "cross")
    with pytest.raises(TypeError, match=r"must be a flax\.nnx\.Module, got int"):
        nn.with_convention(3, "convolution")
    flax_layer = nnx.Conv(1, 1, 3, rngs=nnx.Rngs(0))
    flax_layer.kernel = layer.kernel
    with pytest.raises(ValueError, match="is shared by a layer that must reverse it"):
        nn.with_convention(nnx.Sequential(layer, flax_layer), "convolution")


@pytest.mark.parametrize("transform", [optax.sgd(0.01, momentum=0.9), optax.adam(0.01)], ids=["momentum", "adam"])
def test_training_goes_on_unchanged(transform):
    @nnx.jit
    def step(model, optimizer, x):
        optimizer.update(model, nnx.grad(lambda m: jnp.mean((m(x) - 1) ** 2))(model))

    model, x = Tree("correlation"), normal(1, 4, 6, 2)
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    for _ in range(2):
        step(model, optimizer, x)
    twin_optimizer = nn.optimizer_with_convention(optimizer, model, "convolution")
    twin = nn.with_convention(model, "convolution")
    for _ in range(3):
        step(model, optimizer, x)
        step(twin, twin_optimizer, x)
    back = nn.with_convention(twin, "correlation")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)  # noqa: E731
    jax.tree.map(close, nnx.state(back), nnx.state(model))
    back_optimizer = nn.optimizer_with_convention(twin_optimizer, twin, "correlation")
    jax.tree.map(close, nnx.state(back_optimizer), nnx.state(optimizer))
