"""Long convolutions against loops over time steps, recurrences and the formulas of the models that they come from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxconv
from jaxconv import nn

from .test_nn import assert_close, flipped, initial, quick_jit, values

MADE: dict[str, Any] = {
    "kernel_init": initial,
    "skip_init": initial,
    "param_dtype": jnp.float64,
    "rngs": nnx.Rngs(0),
}


def stepwise(x: Any, h: Any, skip: Any) -> np.ndarray:
    """One output at a time, each from its own and earlier inputs."""
    x, h, skip = (np.asarray(array) for array in (x, h, skip))
    y = np.zeros(x.shape, np.result_type(x, h))
    for t in range(x.shape[-2]):
        for k in range(min(t + 1, len(h))):
            y[..., t, :] += h[k] * x[..., t - k, :]
        y[..., t, :] += skip * x[..., t, :]
    return y


# (input shape, number of taps, options)
CASES = {
    "as long as the sequence": ((2, 9, 3), 9, {}),
    "sequence shorter than the filter": ((2, 5, 3), 9, {}),
    "sequence longer than the filter": ((1, 12, 3), 5, {}),
    "no batch": ((7, 2), 7, {}),
    "batch axes": ((2, 1, 3, 4, 2), 6, {}),
    "one sample": ((2, 1, 2), 4, {}),
    "complex": ((2, 6, 2), 8, {"param_dtype": jnp.complex128}),
}


@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
@pytest.mark.parametrize("case", CASES)
def test_long_conv_matches_a_loop_over_steps(case: str, method: str) -> None:
    """Values, and gradients by the adjoint identity in every argument, under both conventions."""
    shape, taps, options = CASES[case]
    options = MADE | options | {"method": method}
    x, dtype = values(shape, options["param_dtype"], seed=2), options["param_dtype"]
    h, skip = values((taps, shape[-1]), dtype, seed=4), values(shape[-1:], dtype, seed=5)
    ct = np.asarray(values(shape, dtype, seed=6))
    expected = stepwise(x, h, skip)
    for convention in ("convolution", "correlation"):
        layer = nn.LongConv(shape[-1], taps, **options, convention=convention)
        assert layer.kernel.shape == (taps, 1, shape[-1])
        kernel = h[:, None]
        layer.kernel[...] = kernel if convention == "convolution" else flipped(kernel)
        layer.skip[...] = skip
        graphdef, params = nnx.split(layer)

        @quick_jit
        def run(params: Any, x: jax.Array, ct: jax.Array, graphdef: Any = graphdef) -> Any:
            y, pull = jax.vjp(lambda params, x: nnx.merge(graphdef, params)(x), params, x)
            return y, *pull(ct)

        y, gradients, dx = run(params, x, ct)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        # Bilinear: <ct, L(x, h)> = <dx, x> = <dh, h>, also for other x and h than those of the pullback.
        dh = gradients["kernel"][...][:, 0]
        dh = dh if convention == "convolution" else dh[::-1]
        other_x, other_h = values(shape, dtype, seed=7), values((taps, shape[-1]), dtype, seed=8)
        np.testing.assert_allclose(np.sum(dx * other_x), np.sum(ct * stepwise(other_x, h, skip)), rtol=1e-10)
        np.testing.assert_allclose(np.sum(dh * other_h), np.sum(ct * stepwise(x, other_h, 0 * skip)), rtol=1e-10)
        np.testing.assert_allclose(gradients["skip"][...], np.sum(ct * x, tuple(range(x.ndim - 1))), rtol=1e-10)


def test_long_conv_without_a_skip_is_a_causal_depthwise_conv() -> None:
    x = values((2, 8, 3))
    for convention in ("correlation", "convolution"):
        long = nn.LongConv(3, 8, use_skip=False, convention=convention, **MADE)
        options = {"padding": "CAUSAL", "use_bias": False, "convention": convention, "rngs": nnx.Rngs(0)}
        depthwise = nn.DepthwiseConv(3, 8, kernel_init=initial, param_dtype=jnp.float64, **options)
        assert_close(long(x), depthwise(x), 1e-12)


@pytest.mark.parametrize(("kernel_size", "length"), [(16, 16), (40, 16), (5, 16)])
def test_causality(kernel_size: int, length: int) -> None:
    """Exact without an FFT; with one, exact zeros become rounding errors and a NaN is everywhere."""
    layer = nn.LongConv(2, kernel_size, method="direct", **MADE)
    x = values((length, 2))
    y, spoiled = layer(x), layer(x.at[9, 0].set(jnp.nan))
    np.testing.assert_array_equal(spoiled[:9], y[:9])
    assert np.isnan(spoiled[9, 0])
    late = jnp.zeros((length, 2)).at[9:].set(1e6)
    assert not layer(late)[:9].any()
    for t in (1, 4, 9):  # what came later does not matter, nor that there was any
        assert_close(layer(x[:t]), y[:t], 1e-12)
    layer.method = "fft"
    assert np.isnan(layer(x.at[9, 0].set(jnp.nan))[:9, 0]).all()
    blurred = layer(late)[:9]
    assert np.abs(blurred).max() < 1e-15 * 1e6 * np.sqrt(7) * np.linalg.norm(layer.kernel[...]) * 16


def test_half_precision() -> None:
    """Sums in float32; the result in the dtype that is asked for."""
    x = values((2, 64, 3), jnp.bfloat16)
    options = MADE | {"param_dtype": jnp.float32, "dtype": jnp.bfloat16}
    layer = nn.LongConv(3, 64, **options)
    h, skip = (np.asarray(v.astype(jnp.bfloat16), np.float64) for v in (layer.kernel[:, 0], layer.skip[...]))
    exact = stepwise(np.asarray(x, np.float64), h, skip)
    for preferred, unit in ((None, 2**-8), (jnp.float32, 2**-20)):
        layer.preferred_element_type = preferred
        y = layer(x)
        assert y.dtype == (preferred or jnp.bfloat16)
        np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=2 * unit, atol=2 * unit * np.abs(exact).max())


def test_implicit_filter_of_a_state_space_model_is_its_recurrence() -> None:
    """S4D: h[k] = 2 Re sum_n C_n B_n exp(k dt A_n), and the state that it sums up, step by step."""
    features, states, length = 3, 4, 20
    rng = np.random.default_rng(0)
    dt = np.exp(rng.uniform(np.log(0.01), np.log(0.1), features))[:, None]
    a = -0.5 + 1j * np.pi * np.arange(states)
    c = rng.normal(size=(features, states)) + 1j * rng.normal(size=(features, states))
    step, gain = np.exp(dt * a), (np.exp(dt * a) - 1) / a

    def kernel(length: int) -> jax.Array:
        powers = jnp.exp(jnp.arange(length)[:, None, None] * (dt * a))
        return 2 * jnp.einsum("fn,kfn->kf", c * gain, powers).real

    layer = nn.LongConv(features, implicit_filter=kernel, **MADE)
    x = np.asarray(values((2, length, features)))
    state, expected = np.zeros((2, features, states), complex), np.zeros(x.shape)
    for t in range(length):
        state = step * state + gain * x[:, t, :, None]
        expected[:, t] = 2 * np.sum(c * state, -1).real + np.asarray(layer.skip[...]) * x[:, t]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-10)


def hyena(layer: nn.HyenaFilter, length: int) -> np.ndarray:
    """The formula of Poli et al., with the layer's parameters, lag by lag."""
    frequency, output = np.asarray(layer.frequency[...]), np.asarray(layer.output.kernel[...])
    features = output.shape[1]
    rates = np.linspace(np.log(0.01) / 1.5, np.log(0.01) / 0.3, features)
    rows = []
    for k in range(length):
        t = k / (layer.length - 1)
        bands = [f * 2 * np.pi * k / layer.length for f in np.linspace(1e-4, 1, 2)]
        z = np.array([t, *np.cos(bands), *(-np.sin(bands))])
        for dense in layer.hidden:
            z = np.sin(frequency * (z @ np.asarray(dense.kernel[...]) + np.asarray(dense.bias[...])))
        rows.append((z @ output) * (np.exp(-t * np.abs(rates)) + 0.25))
    return np.array(rows)


def test_hyena_filter_is_the_published_formula() -> None:
    layer = nn.HyenaFilter(
        3, 12, embedding=5, width=4, depth=2, frequency=2.0, shift=0.25, param_dtype=jnp.float64, rngs=nnx.Rngs(1)
    )
    layer.hidden[0].bias[...] = values((4,))
    expected = hyena(layer, 12)
    for length in (12, 5):  # the first taps of one filter
        found = layer(length)
        assert found.shape == (length, 3)
        np.testing.assert_allclose(found, expected[:length], rtol=1e-10, atol=1e-12)
    x = values((2, 8, 3))
    long = nn.LongConv(3, implicit_filter=layer, **MADE)
    np.testing.assert_allclose(long(x), stepwise(x, expected, long.skip[...]), rtol=1e-10, atol=1e-10)


def test_window_of_the_hyena_filter() -> None:
    """It falls to the target where the decays say."""
    options = {"fast_decay": 0.5, "slow_decay": 1.0, "target": 0.1, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    layer, flat = (nn.HyenaFilter(2, 5, **options | more) for more in ({}, {"target": 1 - 1e-15}))
    nnx.update(flat, nnx.state(layer))
    window = layer(9) / flat(9)
    np.testing.assert_allclose(window[4, 0], 0.1, rtol=1e-10)
    np.testing.assert_allclose(window[2, 1], 0.1, rtol=1e-10)
    np.testing.assert_allclose(window[8], [0.1**2, 0.1**4], rtol=1e-10)  # beyond the length, by the formula


def make(key: jax.Array) -> nn.LongConv:
    rngs = nnx.Rngs(key)
    implicit = nn.HyenaFilter(2, 8, width=3, depth=1, param_dtype=jnp.float64, rngs=rngs)
    return nn.LongConv(2, implicit_filter=implicit, param_dtype=jnp.float64, rngs=rngs)


def test_training_under_vmap_over_models_and_scan() -> None:
    """Two models with implicit filters at once equal each by itself, and each learns."""
    keys = jax.random.split(jax.random.key(0), 2)
    graphdef, params = nnx.split(nnx.vmap(make)(keys))
    xs = jnp.tile(values((2, 3, 8, 2)), (12, 1, 1, 1, 1))
    target = jnp.cumsum(xs, axis=-2)

    def step(params: Any, batch: Any) -> Any:
        x, y = batch
        loss = lambda params: jnp.mean((nnx.merge(graphdef, params)(x) - y) ** 2)  # noqa: E731
        value, gradients = jax.value_and_grad(jax.checkpoint(loss))(params)
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, gradients), value

    losses = quick_jit(lambda params: jax.lax.scan(jax.vmap(step), params, (xs, target)))(params)[1]
    assert (losses[-1] < 0.8 * losses[0]).all()
    for i in range(2):
        one = jax.tree.map(lambda p, i=i: p[i], params)
        alone = quick_jit(lambda one, i=i: jax.lax.scan(step, one, (xs[:, i], target[:, i])))(one)[1]
        np.testing.assert_allclose(losses[:, i], alone, rtol=1e-9)


def test_long_conv_under_vmap_over_inputs_and_jvp() -> None:
    layer = nn.LongConv(2, 6, **MADE)
    x = values((3, 6, 2))
    np.testing.assert_allclose(jax.vmap(layer, 1, 1)(jnp.moveaxis(x, 0, 1)), jnp.moveaxis(layer(x), 0, 1), atol=1e-13)
    tangent = values(x.shape, seed=3)
    np.testing.assert_allclose(jax.jvp(layer, (x,), (tangent,))[1], layer(tangent), atol=1e-13)


def test_conversion_between_conventions() -> None:
    """Explicit filters are reversed with their moments; implicit ones have no kernel to reverse."""
    x = values((1, 6, 2))
    model = nnx.List([nn.LongConv(2, 6, **MADE), make(jax.random.key(1))])
    converted = nn.with_convention(nnx.Sequential(*model), "correlation")
    one, two = converted.layers
    assert (one.convention, two.convention) == ("correlation", "convolution")
    np.testing.assert_array_equal(one.kernel[...], flipped(model[0].kernel[...]))
    for new, old in zip(converted.layers, model, strict=True):
        assert_close(new(x), old(x), 1e-12)
    optimizer = nnx.Optimizer(model[0], optax.adam(0.1), wrt=nnx.Param)
    loss = lambda layer: jnp.sum(layer(x) ** 3)  # noqa: E731
    optimizer.update(model[0], nnx.grad(loss)(model[0]))
    converted = nn.optimizer_with_convention(optimizer, model[0], "correlation")
    one = nn.with_convention(model[0], "correlation")
    converted.update(one, nnx.grad(loss)(one))
    optimizer.update(model[0], nnx.grad(loss)(model[0]))
    assert_close(one.kernel[...], flipped(model[0].kernel[...]), 1e-10)


def test_empty_sequences_and_batches() -> None:
    for layer in (nn.LongConv(2, 6, **MADE), make(jax.random.key(0))):
        for shape in ((0, 2), (3, 0, 2), (0, 5, 2)):
            assert layer(jnp.zeros(shape)).shape == shape


def test_export_with_symbolic_sizes() -> None:
    batch, length = jax.export.symbolic_shape("b, n")
    layer = nn.LongConv(2, 4, **MADE)
    spec = jax.ShapeDtypeStruct((batch, length, 2), jnp.float64)
    exported = jax.export.export(jax.jit(layer))(spec)
    for n in (2, 4, 7):
        x = values((3, n, 2))
        np.testing.assert_allclose(exported.call(x), layer(x), atol=1e-12)


def test_long_conv_keeps_an_explicit_sharding(two_devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,), devices=two_devices)
    x, layer = values((4, 6, 2)), nn.LongConv(2, 6, **MADE)
    expected = np.asarray(layer(x))
    with jax.set_mesh(mesh):
        layer = nn.LongConv(2, 6, **MADE)
        y = jax.jit(layer)(jax.device_put(x, NamedSharding(mesh, P("batch"))))
        assert y.sharding.spec == P("batch", None, None)
        whole = layer(jax.device_put(x, NamedSharding(mesh, P("batch"))), out_sharding=P(None, None, None))
        assert whole.sharding.spec == P(None, None, None)
    for found in (y, whole):
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)


@pytest.mark.x32
def test_long_sequences_are_planned_as_fourier_transforms() -> None:
    """4096 samples of 64 features: a few hundred times less work than the definition, in both gradients too."""
    layer = nn.LongConv(64, 4096, rngs=nnx.Rngs(0))
    report = jaxconv.plan(layer, jax.ShapeDtypeStruct((4, 4096, 64), jnp.float32))
    (plan,) = report
    assert {decision.chosen for decision in (plan.forward, plan.input_gradient, plan.kernel_gradient)} == {"fft"}


def test_parameters_and_metadata() -> None:
    layer = nn.LongConv(3, (5,), kernel_metadata={"note": 1}, skip_metadata={"note": 2}, rngs=nnx.Rngs(0))
    assert layer.kernel.get_metadata()["note"] == 1
    assert layer.skip.get_metadata()["note"] == 2
    assert layer.kernel.dtype == layer.skip.dtype == jnp.float32
    assert nn.LongConv(3, 5, use_skip=False, rngs=nnx.Rngs(0)).skip is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda **o: nn.LongConv(2, **o), ValueError, r"give either kernel_size.*or implicit_filter.*got neither"),
        (lambda **o: nn.LongConv(2, 4, implicit_filter=len, **o), ValueError, r"got both, 4 and <built-in"),
        (
            lambda **o: nn.LongConv(2, implicit_filter=4, **o),
            TypeError,
            r"must be a function from a length .*\(length, 2\)",
        ),
        (lambda **o: nn.LongConv(2, (4, 4), **o), ValueError, r"kernel_size must be one integer, .* got \(4, 4\)"),
        (lambda **o: nn.LongConv(2, 0, **o), ValueError, r"kernel_size must be positive, got 0"),
        (lambda **o: nn.LongConv(2.5, 4, **o), TypeError, r"in_features must be an integer, got 2.5"),
        (lambda **o: nn.LongConv(2, 4, skip_init=0, **o), TypeError, r"skip_init must be an initialiser"),
        (lambda **o: nn.LongConv(2, 4, use_skip=None, **o), TypeError, r"use_skip must be True or False, got None"),
        (lambda **o: nn.LongConv(2, 4, method="quick", **o), ValueError, r"unknown method 'quick'"),
        (
            lambda **o: nn.LongConv(2, implicit_filter=jnp.zeros, convention="correlation", **o),
            ValueError,
            r"an implicit filter is a function of the lag: leave convention='convolution'",
        ),
        (lambda **o: nn.HyenaFilter(2, 0, **o), ValueError, r"length must be positive, got 0"),
        (lambda **o: nn.HyenaFilter(2, 4, embedding=4, **o), ValueError, r"embedding must be odd and at least 3"),
        (lambda **o: nn.HyenaFilter(2, 4, depth=0, **o), ValueError, r"depth must be positive, got 0"),
        (lambda **o: nn.HyenaFilter(2, 4, fast_decay=1j, **o), TypeError, r"fast_decay must be a real number, got 1j"),
        (lambda **o: nn.HyenaFilter(2, 4, target=1, **o), ValueError, r"target must lie between 0 and 1, got 1"),
        (lambda **o: nn.HyenaFilter(2, 4, fast_decay=0, **o), ValueError, r"fast_decay must be positive"),
    ],
)
def test_long_conv_rejects(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(rngs=nnx.Rngs(0))


@pytest.mark.parametrize("convention", ["correlation", "convolution"])
def test_gradients_share_spectra(convention: Any) -> None:
    """Input, filter and cotangent are transformed once each, and each result is transformed back."""
    layer = nn.LongConv(3, 64, use_skip=False, method="fft", convention=convention, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(layer)
    loss = jax.value_and_grad(lambda p, x: jnp.sin(nnx.merge(graphdef, p)(x)).sum(), (0, 1))
    text = jax.jit(loss).lower(params, jnp.ones((2, 64, 3), jnp.float32)).compile().as_text()
    assert text.count(" fft(") == 6


def test_long_conv_rejects_inputs() -> None:
    explicit = nn.LongConv(2, 4, **MADE)
    implicit = nn.LongConv(2, implicit_filter=lambda length: jnp.ones((length, 3)), **MADE)
    for call, message in (
        (lambda: explicit(jnp.ones(2)), r"kernel_size=\(4,\) needs an input of at least 2 axes.*\(2,\)"),
        (lambda: explicit(jnp.ones((2, 5))), r"has 5 features .*in_features=2: .*moveaxis\(inputs, -2, -1\) moves"),
        (lambda: implicit(jnp.ones(2)), r"the layer needs an input of at least 2 axes"),
        (
            lambda: implicit(jnp.ones((5, 2))),
            r"implicit_filter\(5\) returned shape \(5, 3\), but was asked for \(5, 2\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    nothing = nn.LongConv(2, implicit_filter=lambda length: None, **MADE)
    with pytest.raises(TypeError, match=r"what implicit_filter\(5\) returned must be an array, got one of type None"):
        nothing(jnp.ones((5, 2)))
