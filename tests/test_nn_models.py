"""ResNet, MobileNet and UNet: against the same networks written out with `jax.lax`, in both conventions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from jaxconv import nn

from .test_nn import assert_close, quick_jit, values

RGB = (2, 5, 7, 3)
# Kernels of one odd and one even size, a stage of several blocks, sizes that the strides do not divide.
MODELS: dict[str, tuple[type[nnx.Module], tuple[int, int], dict[str, Any]]] = {
    "resnet": (nn.ResNet, (3, 4), {"widths": (8, 6), "blocks": (1, 2), "kernel_size": (3, 2)}),
    "mobilenet": (nn.MobileNet, (3, 4), {"widths": (16, 3), "blocks": 1, "kernel_size": (2, 3)}),
    "unet": (nn.UNet, (3, 3), {"widths": (4, 8, 3), "kernel_size": (3, 2), "residual": True}),
}


def build(name: str, seed: int | None = 0, **more: Any) -> Any:
    """A network with random parameters in float64, its biases and scales included."""
    cls, arguments, options = MODELS[name]
    options = {"param_dtype": jnp.float64} | options | more
    graphdef, params = nnx.split(nnx.eval_shape(lambda: cls(*arguments, **options, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    return nnx.merge(
        graphdef, jax.tree.map(lambda p: jnp.asarray(rng.normal(scale=0.5, size=p.shape), p.dtype), params)
    )


def conv(layer: Any, x: jax.Array, stride: int = 1, padding: str = "SAME", groups: int = 1) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x, layer.kernel[...], (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )
    return y if layer.bias is None else y + layer.bias[...]


def normal(norm: Any, x: jax.Array) -> jax.Array:
    size = 8 if x.shape[-1] % 8 == 0 else x.shape[-1]
    groups = [x[..., i : i + size] for i in range(0, x.shape[-1], size)]
    groups = [(g - g.mean((1, 2, 3), keepdims=True)) / jnp.sqrt(g.var((1, 2, 3), keepdims=True) + 1e-6) for g in groups]
    return jnp.concatenate(groups, -1) * norm.scale[...] + norm.bias[...]


def unit(part: Any, x: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    y = conv(part.conv, x, stride, groups=groups)
    return y if part.norm is None else normal(part.norm, y)


def resnet(model: Any, x: jax.Array) -> jax.Array:
    x = nnx.relu(unit(model.stem, x))
    for block, stride in zip(model.blocks, (1, 2, 1), strict=True):
        y = unit(block.second, nnx.relu(unit(block.first, x, stride)))
        x = nnx.relu(y + (unit(block.shortcut, x, stride) if stride == 2 else x))
    return x.mean((1, 2)) @ model.head.kernel[...] + model.head.bias[...]


def mobilenet(model: Any, x: jax.Array) -> jax.Array:
    x = nnx.relu(unit(model.stem, x))
    for block, stride in zip(model.blocks, (1, 2), strict=True):
        x = nnx.relu(unit(block.depthwise, x, stride, groups=x.shape[-1]))
        x = nnx.relu(unit(block.pointwise, x))
    return x.mean((1, 2)) @ model.head.kernel[...] + model.head.bias[...]


def unet(model: Any, images: jax.Array) -> jax.Array:
    def pair(part: Any, x: jax.Array) -> jax.Array:
        return nnx.relu(unit(part.second, nnx.relu(unit(part.first, x))))

    def up(layer: Any, x: jax.Array) -> jax.Array:  # each pixel becomes two by two, which do not overlap
        y = jnp.einsum("nhwc,ijco->nhiwjo", x, layer.kernel[::-1, ::-1])
        n, h, _, w, _, o = y.shape
        return y.reshape(n, 2 * h, 2 * w, o) + layer.bias[...]

    height, width = images.shape[1:3]
    x = jnp.pad(images, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
    fine = pair(model.encoders[0], x)
    middle = pair(model.encoders[1], conv(model.downs[0], fine, 2, "VALID"))
    coarse = pair(model.encoders[2], conv(model.downs[1], middle, 2, "VALID"))
    middle = pair(model.decoders[1], jnp.concatenate([middle, up(model.ups[1], coarse)], -1))
    fine = pair(model.decoders[0], jnp.concatenate([fine, up(model.ups[0], middle)], -1))
    return images + conv(model.head, fine)[:, :height, :width]


DEFINITIONS = {"resnet": resnet, "mobilenet": mobilenet, "unet": unet}


@pytest.mark.parametrize("name", MODELS)
def test_matches_definition_in_both_conventions(name: str) -> None:
    """Values and all gradients; those of the converted network are converted back."""
    model = build(name)
    twin = nn.with_convention(model, "convolution")
    assert {part.convention for _, part in nnx.iter_modules(twin) if hasattr(part, "convention")} == {"convolution"}
    splits = [nnx.split(m) for m in (model, model, twin)]
    functions = [DEFINITIONS[name], lambda model, x: model(x), lambda model, x: model(x)]

    @quick_jit
    def outcomes(parameters: Any, x: jax.Array) -> Any:
        found = []
        for function, (graphdef, _), params in zip(functions, splits, parameters, strict=True):
            result, pullback = jax.vjp(lambda p, x: function(nnx.merge(graphdef, p), x), params, x)  # noqa: B023
            found.append((result, *pullback(jnp.cos(result))))
        return found

    expected, plain, (result, gradient, pixels) = outcomes([params for _, params in splits], values(RGB))
    assert_close(plain, expected, 1e-9)
    back = nn.with_convention(nnx.merge(splits[2][0], gradient), "correlation")
    assert_close((result, nnx.state(back), pixels), expected, 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_plain_flax_is_the_same_network(name: str) -> None:
    layers = {"conv": nnx.Conv} | ({"conv_transpose": nnx.ConvTranspose} if name == "unet" else {})
    cls, arguments, options = MODELS[name]
    make = quick_jit(lambda: [cls(*arguments, **options, **more, rngs=nnx.Rngs(3)) for more in ({}, layers)])
    ours, flax = make()
    jax.tree.map(np.testing.assert_array_equal, nnx.state(ours), nnx.state(flax))
    assert not any(isinstance(part, nn.Conv | nn.ConvTranspose) for _, part in nnx.iter_modules(flax))
    assert_close(*quick_jit(lambda x: (ours(x), flax(x)))(values(RGB, jnp.float32)), 1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_no_normalisation(name: str) -> None:
    """The convolutions have a bias in its place, with plain Flax as well."""
    model, flax = build(name, norm=None), build(name, norm=None, conv=nnx.Conv)
    assert not any(isinstance(part, nnx.GroupNorm) for _, part in nnx.iter_modules(model))
    x = values(RGB)
    assert_close(*quick_jit(lambda x: ((model(x), flax(x)), (DEFINITIONS[name](model, x),) * 2))(x), 1e-9)


def test_other_normalisations() -> None:
    """Of Flax: one that keeps statistics, which the model then holds, and group normalisation spelt out."""
    model = nn.ResNet(3, 4, widths=(8,), norm=nnx.BatchNorm, rngs=nnx.Rngs(0))
    x = values(RGB, jnp.float32)
    training = model(x)
    model.eval()
    means = [part.mean for _, part in nnx.iter_modules(model) if isinstance(part, nnx.BatchNorm)]
    assert len(means) == 3
    assert all((mean[...] != 0).any() for mean in means)
    assert not np.allclose(model(x), training)
    group = functools.partial(nnx.GroupNorm, num_groups=1)
    ours, spelt = (nn.UNet(1, 1, widths=(8, 8), rngs=nnx.Rngs(0), **more) for more in ({}, {"norm": group}))
    x = values((1, 3, 4, 1), jnp.float32)
    np.testing.assert_array_equal(ours(x), spelt(x))


def test_published_size() -> None:
    """ResNet-20 has 0.27 million parameters and 20 layers, not counting those of its shortcuts."""
    model = nnx.eval_shape(lambda: nn.ResNet(3, 10, blocks=3, rngs=nnx.Rngs(0)))
    count = sum(p.size for p in jax.tree.leaves(nnx.state(model)))
    assert round(count / 1e6, 2) == 0.27
    layers = [path for path, part in nnx.iter_modules(model) if isinstance(part, nnx.Conv | nnx.Linear)]
    assert len([path for path in layers if "shortcut" not in path]) == 20


@pytest.mark.x32
def test_seeds_train_side_by_side() -> None:
    """`vmap` over seeds, `scan` over steps: a U-Net in bfloat16 learns to invert pictures, whoever trains beside it."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 6, 9, 1)), jnp.float32)
    transform = optax.adam(1e-2)

    def start(seed: jax.Array) -> nnx.Module:
        return nn.UNet(1, 1, widths=(8, 8), convention="convolution", dtype=jnp.bfloat16, rngs=nnx.Rngs(seed))

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: start(jax.random.key(0))))

    def loss(params: Any) -> jax.Array:
        inverted = nnx.merge(graphdef, params)(images)
        assert inverted.dtype == jnp.bfloat16
        return jnp.mean((inverted - (1 - images)) ** 2)

    def train(seed: jax.Array) -> jax.Array:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = transform.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        params = nnx.state(start(seed))
        return lax.scan(step, (params, transform.init(params)), length=100)[1]

    first, second, third = jax.random.split(jax.random.key(1), 3)
    together = quick_jit(jax.vmap(train))
    losses = together(jnp.stack([first, second]))
    assert (losses[:, -1] < 0.25 * images.var()).all()  # the best constant is left with the variance
    np.testing.assert_allclose(together(jnp.stack([third, second]))[1], losses[1], rtol=1e-6)
    assert not np.allclose(losses[0], losses[1], rtol=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_batch_axes(name: str) -> None:
    model = build(name)
    x = values((2, 1, *RGB[1:]))
    several, single, none = quick_jit(lambda x: (model(x), model(x[1, 0]), model(x[:0])))(x)
    expected = (5, 7, 3) if name == "unet" else (4,)
    assert several.shape == (2, 1, *expected)
    assert none.shape == (0, 1, *expected)
    assert_close(single, several[1, 0], 1e-10)


def test_one_and_three_spatial_axes() -> None:
    makers = [
        lambda: nn.ResNet(2, 3, widths=(4, 4), kernel_size=(3,), rngs=nnx.Rngs(0)),
        lambda: nn.MobileNet(2, 3, widths=(4, 4), kernel_size=(3, 1, 3), rngs=nnx.Rngs(0)),
        lambda: nn.UNet(2, 3, widths=(4, 4), kernel_size=(3,), rngs=nnx.Rngs(0)),
    ]
    for make, size, expected in zip(makers, ((7,), (3, 4, 5), (7,)), ((3,), (3,), (7, 3)), strict=True):
        result = jax.eval_shape(lambda x: make()(x), jnp.zeros((1, *size, 2)))  # noqa: B023
        assert result.shape == (1, *expected)


def test_smallest_images() -> None:
    """One pixel: it is extended where the network halves, and a group of features still varies."""
    for name in MODELS:
        y = quick_jit(build(name))(values((1, 1, 1, 3)))
        assert np.isfinite(y).all()
        assert np.ptp(y) > 0


@pytest.mark.parametrize(
    ("cls", "options", "error", "message"),
    [
        (nn.ResNet, {"widths": ()}, ValueError, r"widths is empty: give one integer for each stage, such as \(16, 32"),
        (nn.ResNet, {"kernel_size": ()}, ValueError, r"kernel_size is empty: give one integer for each spatial axis"),
        (nn.ResNet, {"norm": "batch"}, TypeError, r"norm must be the class of a layer such .*or None: got 'batch'"),
        (nn.MobileNet, {"conv": "depthwise"}, TypeError, r"conv must be the class of a layer, such as flax.nnx.Conv"),
        (nn.ResNet, {"blocks": (1, 2)}, ValueError, r"blocks=\(1, 2\) has 2 entries, but there are 3 stages"),
        (nn.ResNet, {"blocks": 0}, ValueError, r"blocks must be positive, got 0"),
        (nn.MobileNet, {"blocks": (1, 2.0, 1)}, TypeError, r"blocks\[1\] must be an integer, got 2.0"),
        (nn.MobileNet, {"widths": 8}, TypeError, r"widths must be a sequence of integers, one for each stage, .*got 8"),
        (nn.MobileNet, {"convention": "flip"}, ValueError, r"unknown convention 'flip'"),
        (nn.UNet, {"residual": True}, ValueError, r"in_features=3 and out_features=4 differ"),
        (nn.UNet, {"widths": ()}, ValueError, r"widths is empty: give one integer for each level, such as \(16, 32"),
        (nn.UNet, {"residual": 1}, TypeError, r"residual must be True or False, got 1"),
        (nn.UNet, {"dtype": int}, TypeError, r"dtype must be real or complex floating point, .*got int64"),
        (nn.UNet, {"method": "fast"}, ValueError, r"unknown method 'fast'"),
    ],
)
def test_rejects(cls: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cls(3, 4, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("transform", [lambda function: function, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", MODELS)
def test_rejects_images(name: str, transform: Any) -> None:
    model = build(name)
    call = transform(lambda images: model(images))
    with pytest.raises(ValueError, match=r"last axis has 4 features .*in_features=3"):
        call(jnp.zeros((1, 5, 5, 4)))
    with pytest.raises(ValueError, match=r"needs an input of at least 3 axes"):
        call(jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"need a pixel along each spatial axis, got shape \(1, 0, 5, 3\)"):
        call(jnp.zeros((1, 0, 5, 3)))
