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


def is_kernel(params):
    return jax.tree.map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), params)


def groups(params):
    name = lambda path: "first" if "shared" in path else "second" if "kernel" in path else "third"  # noqa: E731
    return jax.tree.map_with_path(lambda path, _: name(jax.tree_util.keystr(path)), params)


def split():
    kinds = {"first": optax.adam(0.01), "second": optax.sgd(0.01, momentum=0.9), "third": optax.sgd(0.01)}
    return optax.multi_transform(kinds, groups)


TRANSFORMS = {
    "adam": optax.adam(0.01),
    "masked": optax.chain(optax.masked(optax.trace(0.9), is_kernel), optax.scale(-0.01)),
    "multi": split(),
    "lbfgs": optax.chain(optax.scale_by_lbfgs(memory_size=3), optax.scale(-0.01)),
}


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "Optimizer") for name in TRANSFORMS), ("adam", "State"), ("multi", "dict")]
)
def test_training_goes_on_unchanged(name, form):
    """Each state of the optimiser: as nnx.Optimizer, and as optax alone makes it from an nnx.State or dictionaries."""
    transform = TRANSFORMS[name]

    def gradient(model, x):
        return nnx.grad(lambda m: jnp.mean((m(x) - 1) ** 2))(model)

    def parameters(tree):
        return nnx.to_pure_dict(tree) if form == "dict" else tree

    @nnx.jit
    def step(model, optimizer, x):
        if form == "Optimizer":
            optimizer.update(model, gradient(model, x))
            return optimizer
        params = parameters(nnx.state(model, nnx.Param))
        updates, optimizer = transform.update(parameters(gradient(model, x)), optimizer, params)
        nnx.update(model, optax.apply_updates(params, updates))
        return optimizer

    model, x = Tree("correlation"), normal(1, 4, 6, 2)
    if form == "Optimizer":
        optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    else:
        optimizer = transform.init(parameters(nnx.state(model, nnx.Param)))
    for _ in range(2):
        optimizer = step(model, optimizer, x)
    twin_optimizer = nn.optimizer_with_convention(optimizer, model, "convolution")
    twin = nn.with_convention(model, "convolution")
    for _ in range(3):
        optimizer = step(model, optimizer, x)
        twin_optimizer = step(twin, twin_optimizer, x)
    back = nn.with_convention(twin, "correlation")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)  # noqa: E731
    jax.tree.map(close, nnx.state(back), nnx.state(model))
    back_optimizer = nn.optimizer_with_convention(twin_optimizer, twin, "correlation")
    jax.tree.map(close, *(nnx.state(o) if form == "Optimizer" else o for o in (back_optimizer, optimizer)))
    if name != "lbfgs":  # of which some differences vanish
        moved = jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), *map(jax.tree.leaves, (back, twin))))
        assert any(moved)


def test_factored_moments():
    """Those of `optax.adafactor` lack the longest axis, or the second longest, which may be a spatial one."""
    transform = optax.adafactor(1e-2)
    for kernel_size, features in (((2, 3), (128, 129)), ((130, 2), (1, 128))):
        build = lambda: nn.Conv(*features, kernel_size, rngs=nnx.Rngs(0))  # noqa: E731, B023
        model = jax.jit(build)()
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=model.kernel.shape))

        @jax.jit
        def state(kernel):
            params = {"kernel": kernel, "bias": jnp.zeros(kernel.shape[-1])}
            return transform.update(params, transform.init(params), params)[1]

        flipped = nn.optimizer_with_convention(state(kernel), model, "convolution")
        expected = state(kernel[::-1, ::-1])
        assert len(jax.tree.leaves(expected)) > 6
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), flipped, expected)


def test_optimizers_that_cannot_be_converted():
    model = nn.Conv(3, 3, (3,), rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model))
    with pytest.raises(TypeError, match=r"the transformation itself \(GradientTransformation\w*\): give what its init"):
        nn.optimizer_with_convention(optax.adam(0.1), model, "convolution")
    flat = optax.flatten(optax.adam(0.1)).init(params)
    with pytest.raises(ValueError, match=r"at '0.mu', of shape \(30,\), has the name of no parameter"):
        nn.optimizer_with_convention(flat, model, "convolution")
    with pytest.raises(ValueError, match=r"at 'momentum.weights', of shape \(3, 3, 3\), has the name of no parameter"):
        nn.optimizer_with_convention({"momentum": {"weights": params["kernel"]}}, model, "convolution")
    with pytest.raises(
        ValueError, match=r"'v.kernel' has shape \(3, 3\), which does not tell where the 1 spatial axes"
    ):
        nn.optimizer_with_convention({"v": {"kernel": jnp.ones((3, 3))}}, model, "convolution")
    unchanged = nn.optimizer_with_convention(flat, model, "correlation")  # nothing to reverse
    jax.tree.map(np.testing.assert_array_equal, unchanged, flat)
