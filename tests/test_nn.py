"""jaxconv.nn against flax.nnx with the same parameters; under "convolution", against Flax with reversed kernels."""

from __future__ import annotations

import functools
import inspect
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import jaxconv
from jaxconv import nn

# Compiling takes most of the time of this file; unoptimised machine code halves it.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# (input shape, positional arguments, options)
CASES = {
    "same": ((2, 6, 7, 3), (3, 4, (3, 3)), {}),
    "same, even kernel": ((2, 6, 7, 3), (3, 2, (4, 2)), {"strides": None}),
    "same_lower": ((1, 6, 3), (3, 2, 4), {"padding": "SAME_LOWER", "strides": 2}),
    "valid, strides, lower case": ((2, 9, 8, 2), (2, 3, (3, 2)), {"padding": "valid", "strides": (2, 1)}),
    "circular": ((2, 8, 6, 2), (2, 3, (3, 4)), {"padding": "CIRCULAR", "strides": 2, "kernel_dilation": (2, 1)}),
    "reflect": ((2, 6, 7, 2), (2, 3, (2, 3)), {"padding": "REFLECT"}),
    "causal": ((2, 9, 2), (2, 3, 3), {"padding": "CAUSAL", "kernel_dilation": 2}),
    "mixed padding": ((2, 5, 6, 2), (2, 3, (3, 3)), {"padding": [1, (0, 2)]}),
    "negative padding": ((2, 7, 6, 2), (2, 3, (3, 1)), {"padding": ((-1, 2), (0, -3))}),
    "integer padding, input dilation": (
        (2, 4, 5, 2),
        (2, 3, (3, 3)),
        {"padding": 2, "input_dilation": (2, 1), "use_bias": False},
    ),
    "groups, mask": ((2, 5, 5, 4), (4, 6, (3, 3)), {"feature_group_count": 2, "mask": np.tri(3)[..., None, None]}),
    "depthwise": ((2, 6, 6, 4), (4, 8, (3, 3)), {"feature_group_count": 4, "precision": "highest"}),
    "volume, no batch": ((4, 5, 3, 2), (2, 2, (2, 3, 2)), {}),
    "batch axes": ((2, 1, 3, 8, 2), (2, 3, (3,)), {}),
    "half precision": (
        (2, 6, 6, 2),
        (2, 3, (3, 3)),
        {"dtype": jnp.bfloat16, "param_dtype": jnp.float32, "preferred_element_type": jnp.float32},
    ),
    "complex": ((2, 8, 2), (2, 3, 3), {"param_dtype": jnp.complex128}),
}
TOLERANCES = {"bfloat16": 2e-2, "float32": 2e-2, "float64": 1e-12, "complex128": 1e-12}


def values(shape: tuple[int, ...], dtype: Any = jnp.float64, seed: int = 0) -> jax.Array:
    """Random numbers without compiling anything."""
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        numbers = numbers + 1j * rng.standard_normal(shape)
    return jnp.asarray(numbers, dtype)


def initial(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """An initialiser that depends on the shape only."""
    del key
    return values(shape, dtype, seed=1)


MADE: dict[str, Any] = {
    "kernel_init": initial,
    "bias_init": initial,
    "param_dtype": jnp.float64,
    "rngs": nnx.Rngs(params=0),
}


def flipped(kernel: jax.Array) -> jax.Array:
    return jaxconv.flip(kernel, axes=range(kernel.ndim - 2))


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(v, np.complex128 if jnp.iscomplexobj(v) else np.float64) for v in (a, b))
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def test_signature() -> None:
    """Whatever Flax's layer takes in this release, with the same names, order and defaults, and then ours."""
    flax, ours = (inspect.signature(cls.__init__).parameters for cls in (nnx.Conv, nn.Conv))
    assert list(ours) == [*flax, "convention", "method", "boundary", "cval"]
    assert all(ours[name].kind is flax[name].kind for name in flax)
    functions = {"kernel_init", "bias_init", "conv_general_dilated"}
    assert all(ours[name].default == flax[name].default for name in flax.keys() - functions)
    assert ours["conv_general_dilated"].default is jaxconv.lax.conv_general_dilated


@pytest.mark.parametrize("case", CASES)
def test_conv_matches_flax(case: str) -> None:
    shape, arguments, options = CASES[case]
    options = MADE | options
    kernel_shape = nnx.Conv(
        *arguments, **MADE | {"feature_group_count": options.get("feature_group_count", 1)}
    ).kernel_shape
    mask = jnp.broadcast_to(options["mask"], kernel_shape) if "mask" in options else None
    layers = {
        "correlation": nn.Conv(*arguments, **options | {"mask": mask}),
        "convolution": nn.Conv(*arguments, **options | {"mask": mask}, convention="convolution"),
        "flax": nnx.Conv(*arguments, **options | {"mask": mask}),
        "flax flipped": nnx.Conv(*arguments, **options | {"mask": None if mask is None else flipped(mask)}),
    }
    layers["flax flipped"].kernel[...] = flipped(layers["flax"].kernel[...])
    x = values(shape, options["param_dtype"] if options.get("dtype") is None else options["dtype"], seed=2)
    cotangent = values(jax.eval_shape(layers["flax"], x).shape, seed=3)
    split = {name: nnx.split(layer, nnx.Param, ...) for name, layer in layers.items()}

    @quick_jit
    def outcomes(states: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        def of(name: str) -> Any:
            params, rest = states[name]
            call = lambda params, x: nnx.merge(split[name][0], params, rest)(x)  # noqa: E731
            result, pullback = jax.vjp(call, params, x)
            return result, *pullback(cotangent.astype(result.dtype))

        return {name: of(name) for name in states}

    found = outcomes({name: parts[1:] for name, parts in split.items()}, x, cotangent)
    tolerance = TOLERANCES[jnp.dtype(x.dtype).name]
    assert_close(found["correlation"], found["flax"], tolerance)
    # The gradient with respect to a kernel that is read backwards is read backwards too.
    reference = found["flax flipped"]
    reference[1]["kernel"][...] = flipped(reference[1]["kernel"][...])
    assert_close(found["convolution"], reference, tolerance)


def test_conv_is_initialised_as_flax() -> None:
    ours, flax = (cls(2, 3, 3, rngs=nnx.Rngs(7)) for cls in (nn.Conv, nnx.Conv))
    assert isinstance(ours, nnx.Conv)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(ours), nnx.state(flax))


def test_conv_keeps_metadata() -> None:
    ours, flax = (
        cls(2, 3, 3, kernel_metadata={"note": 1}, bias_metadata={"note": 2}, **MADE) for cls in (nn.Conv, nnx.Conv)
    )
    assert ours.kernel.get_metadata() == flax.kernel.get_metadata()
    assert ours.bias.get_metadata() == flax.bias.get_metadata()


def test_conv_promotes_as_flax() -> None:
    def widest(arrays: Any, *, dtype: Any) -> Any:
        del dtype
        return tuple(None if a is None else a.astype(jnp.complex128) for a in arrays)

    for options, x in (({}, np.arange(12).reshape(1, 6, 2)), ({"promote_dtype": widest}, values((1, 6, 2)))):
        ours, flax = (cls(2, 3, 3, **MADE, **options) for cls in (nn.Conv, nnx.Conv))
        assert_close(ours(x), flax(x), 1e-12)


def test_conv_choices_may_be_set() -> None:
    layer = nn.Conv(2, 3, 3, padding=[(2, 0)], **MADE)
    x = values((2, 8, 2))
    correlated = layer(x)
    layer.convention = "convolution"
    layer.method = ("fft", "shift", "xla")
    convolved = nnx.jit(lambda layer, x: layer(x))(layer, x)
    layer.kernel[...] = flipped(layer.kernel[...])
    assert_close(convolved, nn.Conv(2, 3, 3, padding=[(2, 0)], convention="convolution", **MADE)(x), 1e-12)
    assert_close(layer(x), correlated, 1e-12)
    assert not np.allclose(convolved, correlated)
    layer.convention = "correlations"
    with pytest.raises(ValueError, match="unknown convention 'correlations'"):
        layer(x)


def test_layers_made_alike_have_equal_graph_definitions() -> None:
    options = {"convention": "convolution", "method": ("xla", "shift", "fft"), "strides": [2], **MADE}
    one, two = (nnx.split(nn.Conv(2, 3, 3, **options))[0] for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != nnx.split(nn.Conv(2, 3, 3, **options | {"convention": "correlation"}))[0]


def test_conv_accepts_another_function() -> None:
    calls = []

    def function(*args: Any, **options: Any) -> jax.Array:
        calls.append({name: options.pop(name) for name in ("convention", "method") if name in options})
        return jax.lax.conv_general_dilated(*args, **options)

    x = values((1, 6, 2))
    for options in ({}, {"convention": "convolution", "method": "xla"}):
        layer = nn.Conv(2, 3, 3, conv_general_dilated=function, **options, **MADE)
        assert_close(layer(x), nnx.Conv(2, 3, 3, **MADE)(x), 1e-12)
        assert calls.pop() == options


def test_function_works_in_flax_layers() -> None:
    x = values((2, 6, 2))
    function = functools.partial(jaxconv.lax.conv_general_dilated, convention="convolution")
    assert_close(
        nnx.Conv(2, 3, 3, conv_general_dilated=function, **MADE)(x),
        nn.Conv(2, 3, 3, convention="convolution", **MADE)(x),
        1e-12,
    )


def trained(conv: type[nnx.Conv], steps: int = 3) -> Any:
    """Losses and final state of two models trained at once: `nnx.vmap` over models, `scan` over steps."""
    model = nnx.vmap(lambda scale: scaled(conv, scale))(jnp.array([0.5, 1.0]))
    graphdef, params = nnx.split(model)
    x, y = values((steps, 2, 4, 6, 6, 2)), values((steps, 2, 4, 6, 6, 3), seed=4)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((nnx.merge(graphdef, params)(x) - y) ** 2)

    def step(params: Any, batch: Any) -> Any:
        losses, gradients = jax.vmap(jax.value_and_grad(jax.checkpoint(loss)))(params, *batch)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), losses

    return quick_jit(lambda params: jax.lax.scan(step, params, (x, y)))(params)


def scaled(conv: type[nnx.Conv], scale: jax.Array) -> nnx.Conv:
    model = conv(2, 3, (3, 3), **MADE | {"rngs": nnx.Rngs(0)})
    model.kernel[...] *= scale
    return model


def test_conv_trains_as_flax_under_vmap_and_scan() -> None:
    assert_close(trained(nn.Conv), trained(nnx.Conv), 1e-12)


def test_conv_under_nnx_transformations() -> None:
    x = values((4, 6, 2))
    found = []
    for cls in (nn.Conv, nnx.Conv):
        model = cls(2, 2, 3, **MADE)
        optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

        @nnx.jit
        def step(model: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array) -> jax.Array:
            @nnx.scan(in_axes=(nnx.Carry, None), out_axes=nnx.Carry, length=2)
            def twice(x: jax.Array, model: nnx.Module) -> jax.Array:
                return jnp.tanh(model(x))

            loss, gradients = nnx.value_and_grad(lambda model: jnp.sum(twice(x, model) ** 2))(model)
            optimizer.update(model, gradients)
            return loss

        losses = [step(model, optimizer, x) for _ in range(2)]
        found.append((losses, nnx.to_pure_dict(nnx.state(model))))
    assert_close(*found, 1e-12)


def test_conv_output_sharding(two_devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,), devices=two_devices)
    x = values((4, 6, 2))
    expected = nn.Conv(2, 3, 3, **MADE)(x)
    with jax.set_mesh(mesh):
        for cls in (nn.Conv, nnx.Conv):
            layer = cls(2, 3, 3, **MADE)
            found = layer(jax.device_put(x, NamedSharding(mesh, P("batch"))), out_sharding=P("batch", None, None))
            assert found.sharding.spec == P("batch", None, None)
            assert_close(np.asarray(found), np.asarray(expected), 1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"convention": "conv"}, ValueError, r"unknown convention 'conv': choose one of 'correlation', 'convolution'"),
        ({"method": "fast"}, ValueError, r"unknown method 'fast': choose one of 'auto', 'direct'"),
        ({"method": ("xla", "fft")}, ValueError, r"unknown method \('xla', 'fft'\).* triple"),
        ({"padding": "CIRCLE"}, ValueError, r"unknown padding 'CIRCLE': choose one of 'SAME', .*'CAUSAL', an integer"),
        ({"padding": "CAUSAL"}, ValueError, r"needs one spatial axis, but kernel_size has 2: pad each axis in numbers"),
        ({"padding": (1,)}, ValueError, r"padding must have one entry per spatial axis: got 1 \(\(1,\)\).* has 2"),
        ({"padding": (1, (1, 2, 3))}, ValueError, r"padding\[1\] must be an integer or a pair .*got \(1, 2, 3\)"),
        ({"padding": 1.0}, TypeError, r"padding must be an integer, got 1.0 of type float"),
        ({"strides": (1, 2, 3)}, ValueError, r"strides must have one entry per spatial axis: got 3"),
        ({"strides": 0}, ValueError, r"strides must be positive, got 0"),
        ({"kernel_dilation": (1, -1)}, ValueError, r"kernel_dilation\[1\] must be positive, got -1"),
        ({"input_dilation": True}, TypeError, r"input_dilation must be an integer, got True of type bool"),
        ({"input_dilation": 2}, ValueError, r"padding='SAME' has no meaning with input_dilation=2: give an integer or"),
        ({"kernel_size": "33"}, TypeError, r"kernel_size must be an integer or a sequence of .* got '33'"),
        ({"in_features": 0}, ValueError, r"in_features must be positive, got 0"),
        ({"feature_group_count": 2}, ValueError, r"in_features=3 cannot be divided into feature_group_count=2 groups"),
        ({"feature_group_count": 3}, ValueError, r"out_features=4 cannot be divided into feature_group_count=3"),
        ({"mask": np.ones((3, 3))}, ValueError, r"mask has shape \(3, 3\), but the kernel has \(3, 3, 3, 4\)"),
    ],
)
def test_conv_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"in_features": 3, "out_features": 4, "kernel_size": (3, 3)}
    with pytest.raises(error, match=message):
        nn.Conv(**arguments | MADE | options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 5, 5, 4),
            r"last axis has 4 features \(shape \(2, 5, 5, 4\)\), but .* in_features=3: the features come last",
        ),
        ((5, 3), r"kernel_size=\(3, 3\) needs an input of at least 3 axes, .*got shape \(5, 3\)"),
    ],
)
def test_conv_rejects_inputs(shape: tuple[int, ...], message: str) -> None:
    layer = nn.Conv(3, 4, (3, 3), **MADE)
    for call in (layer, jax.jit(layer)):
        with pytest.raises(ValueError, match=message):
            call(jnp.zeros(shape))


def cnn(seed: int = 0, **options: Any) -> nn.CNN:
    """A network in float64 with random parameters, biases included."""
    options = {"image_shape": (9, 6), "widths": (3, 4), "param_dtype": jnp.float64} | options
    model = nnx.eval_shape(lambda: nn.CNN(2, 5, rngs=nnx.Rngs(0), **options))
    graphdef, params = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(lambda p: 0.3 * values(p.shape, p.dtype, seed + p.size), params))


def by_flax(model: nn.CNN, images: jax.Array) -> jax.Array:
    """The network as Flax's documentation would write it."""
    window = (2,) * (images.ndim - 2)
    for conv in model.convs:
        images = nnx.max_pool(nnx.relu(conv(images)), window, strides=window)
    return model.head(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("image_shape", "kernel_size", "widths"),
    [((9, 6), (2, 3), (3, 4)), ((13,), (4,), (4,)), ((3, 4, 2), (2, 3, 1), (3,))],
    ids=str,
)
def test_cnn_matches_flax(image_shape: tuple[int, ...], kernel_size: tuple[int, ...], widths: tuple[int, ...]) -> None:
    """Plain Flax, jaxconv, and jaxconv with reversed filters: one function, and gradients that are reversed copies."""
    options = {"image_shape": image_shape, "kernel_size": kernel_size, "widths": widths}
    models = [
        cnn(**options, conv=nnx.Conv),
        cnn(**options, method=("xla", "direct", "xla")),
        cnn(**options, convention="convolution"),
    ]
    images = values((3, *image_shape, 2), seed=8)
    splits = [nnx.split(model) for model in models]
    parameters = [params for _, params in splits]

    def reverse(params: Any) -> Any:
        is_kernel = lambda path: "convs" in str(path) and "kernel" in str(path)  # noqa: E731
        return jax.tree.map_with_path(lambda path, p: flipped(p) if is_kernel(path) else p, params)

    parameters[2] = reverse(parameters[2])

    def call(index: int, params: Any, images: jax.Array) -> jax.Array:
        model = nnx.merge(splits[index][0], params)
        return by_flax(model, images) if index == 0 else model(images)

    @quick_jit
    def outcomes(parameters: Any, images: jax.Array) -> Any:
        found = []
        for index, params in enumerate(parameters):
            result, pullback = jax.vjp(functools.partial(call, index), params, images)
            found.append((result, *pullback(jnp.cos(result))))
        return found

    flax, plain, (result, gradients, image_gradient) = outcomes(parameters, images)
    assert flax[0].shape == (3, 5)
    assert_close(plain, flax, 1e-10)
    assert_close((result, reverse(gradients), image_gradient), flax, 1e-10)


def test_cnn_batch_axes() -> None:
    model = cnn(widths=(3,))
    images = values((2, 3, 9, 6, 2))
    logits, single = quick_jit(lambda images: (model(images), model(images[1, 2])))(images)
    assert logits.shape == (2, 3, 5)
    assert_close(single, logits[1, 2], 1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"image_shape": (3, 8)},
            ValueError,
            r"images of \(3, 8\) pixels cannot be halved by 2 blocks .*need 4 pixels",
        ),
        ({"image_shape": (8,)}, ValueError, r"image_shape=\(8,\) and kernel_size=\(3, 3\) need one entry each"),
        ({"image_shape": 8}, TypeError, r"image_shape must be a sequence of integers, one .* spatial axis, got 8"),
        ({"widths": ()}, ValueError, r"widths is empty: give one integer for each block, such as \(16, 32\)"),
        ({"widths": (4, 0)}, ValueError, r"widths\[1\] must be positive, got 0"),
        ({"num_classes": 0}, ValueError, r"num_classes must be positive, got 0"),
        ({"convention": "flip"}, ValueError, r"unknown convention 'flip'"),
        ({"conv": nnx.Conv, "method": "fft"}, TypeError, r"unexpected keyword argument 'method'"),
    ],
)
def test_cnn_rejects(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.CNN(**{"in_features": 1, "num_classes": 10, "image_shape": (8, 8), "rngs": nnx.Rngs(0)} | options)


def test_cnn_rejects_images() -> None:
    with pytest.raises(
        ValueError, match=r"image_shape=\(9, 6\) needs images of shape \(\*batch, 9, 6, features\), got"
    ):
        cnn()(jnp.zeros((3, 6, 9, 2)))


@pytest.mark.x32
def test_cnn_learns_digits() -> None:
    digits = load_digits()
    images, labels = jnp.asarray(digits.images[..., None] / 16, jnp.float32), jnp.asarray(digits.target)
    model = quick_jit(lambda: nn.CNN(1, 10, image_shape=(8, 8), convention="convolution", rngs=nnx.Rngs(0)))()
    graphdef, params = nnx.split(model)
    optimizer = optax.adam(3e-3)

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        logits = nnx.merge(graphdef, params)(images[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry: Any, rows: jax.Array) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return (optax.apply_updates(params, updates), state), None

    order = np.random.default_rng(0).permutation(len(labels))
    training, test = order[:1408], order[1408:]
    rows = np.concatenate([np.random.default_rng(i).permutation(training) for i in range(8)]).reshape(-1, 64)

    @jax.jit
    def accuracy(params: Any) -> jax.Array:
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), rows)
        return (nnx.merge(graphdef, params)(images[test]).argmax(-1) == labels[test]).mean()

    assert accuracy(params) > 0.95


def test_flax_is_imported_by_nn_only() -> None:
    program = (
        "import sys, jaxconv\n"
        "assert 'flax' not in sys.modules\n"
        "sys.modules['flax'] = None\n"  # as if it were not installed
        "try:\n    jaxconv.nn\n"
        "except ImportError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == 'jaxconv.nn needs Flax: pip install "jaxconv[flax]"'
