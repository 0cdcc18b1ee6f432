"""Several devices: the same values and, above all, the same gradients as on one.

The failure to guard against is silent: with operands that vary over different mesh axes the forward pass is right and
the gradient of a replicated kernel wrong by the part that the other devices should have contributed.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxconv._ops import conv

from .cases import Case, operands, random
from .methods import may_use_fft, parameters
from .tolerances import check

CASES = (
    Case("sharded", (7, 6), (3, 2), (2, 1), ((1, 1), (0, 1)), g=2, n=4, c=2, o=4),
    Case("sharded-long", (72,), (5,), padding=((0, 2),), g=2, n=2, o=2),
    Case("sharded-few-outputs", (16,), (13,), padding=1, g=2, n=2, o=2),
    Case("sharded-narrow", (9,), (8,), padding=1, g=2, n=8, o=2),
    Case("sharded-transposed", (5, 4), (3, 2), padding=2, lhs_dilation=(2, 1), g=2, n=2, o=2),
    Case("sharded-volume", (4, 3, 3), (2, 1, 3), padding=((1, 0), (0, 0), (1, 1)), g=2, n=2, o=2),
)
CASE = CASES[0]
# Every algorithm, on the first of these that it can run.
ALGORITHMS = parameters(CASES, ("float64",), limit=1)
REPLICATED, BATCH = PartitionSpec(), PartitionSpec(None, "i")
# Sharded axis of x, of w and of y: batch, output channels, groups.
LAYOUTS = {
    "batch": (BATCH, REPLICATED, BATCH),
    "features": (REPLICATED, PartitionSpec(None, "i"), PartitionSpec(None, None, "i")),
    "groups": (PartitionSpec("i"), PartitionSpec("i"), PartitionSpec("i")),
}


@pytest.fixture
def mesh(two_devices):
    return Mesh(np.array(two_devices), ("i",))


def data(case):
    return (*operands(case, "float64"), random(case.y_shape, "float64", "ct"))


def assert_results(results, case, method):
    x, w, ct = data(case)
    y, dx, dw = results
    fft = may_use_fft(method)
    check("value", y, x, w, case, "convolution", "float64", fft=fft)
    check("input", dx, ct, w, case, "convolution", "float64", fft=fft)
    check("kernel", dw, ct, x, case, "convolution", "float64", fft=fft)


def pullback(case, method, wrap=lambda function: function):
    """(x, w, ct) -> (y, dx, dw), compiled."""
    function = wrap(functools.partial(conv, **case.options, convention="convolution", method=method))

    @jax.jit
    def run(x, w, ct):
        y, pull = jax.vjp(function, x, w)
        return y, *pull(ct)

    return run


def sharded_over(mesh, layout, **options):
    x_spec, w_spec, y_spec = LAYOUTS[layout]
    return functools.partial(jax.shard_map, mesh=mesh, in_specs=(x_spec, w_spec), out_specs=y_spec, **options)


@pytest.mark.parametrize(("case", "dtype", "method"), ALGORITHMS)
def test_gradient_through_shard_map(mesh, case, dtype, method):
    """A sharded batch and a replicated kernel, whose gradient is summed over the devices."""
    assert_results(pullback(case, method, sharded_over(mesh, "batch"))(*data(case)), case, method)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("check_vma", [True, False], ids=["checked", "unchecked"])
def test_layouts_of_shard_map(mesh, layout, check_vma):
    """Also without JAX's check of what varies over which axis."""
    run = pullback(CASE, "auto", sharded_over(mesh, layout, check_vma=check_vma))
    assert_results(run(*data(CASE)), CASE, "auto")


@pytest.mark.parametrize(("case", "dtype", "method"), ALGORITHMS)
def test_gradient_inside_shard_map(mesh, case, dtype, method):
    """The training step that people write: a loss summed over devices, differentiated within."""

    def step(x, w, ct):
        def loss(x, w):
            y = conv(x, w, **case.options, convention="convolution", method=method)
            return jax.lax.psum(jnp.sum(ct * y), "i"), y

        (_, y), (dx, dw) = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, w)
        return y, dx, dw

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(BATCH, REPLICATED, BATCH), out_specs=(BATCH, BATCH, REPLICATED))
    assert_results(jax.jit(sharded)(*data(case)), case, method)


def test_forward_mode_inside_shard_map(mesh):
    x, w, _ = data(CASE)
    dw = random(CASE.w_shape, "float64", "tangent")
    function = functools.partial(conv, **CASE.options, convention="convolution")
    sharded = jax.shard_map(
        lambda x, w, dw: jax.jvp(lambda w: function(x, w), (w,), (dw,)),
        mesh=mesh,
        in_specs=(BATCH, REPLICATED, REPLICATED),
        out_specs=(BATCH, BATCH),
    )
    y, dy = jax.jit(sharded)(x, w, dw)
    check("value", y, x, w, CASE, "convolution", "float64", fft=True)
    check("value", dy, x, dw, CASE, "convolution", "float64", fft=True)


def test_per_sample_gradients_inside_shard_map(mesh):
    """`vmap` inside `shard_map`: the batching rule sees a varying and a replicated operand."""
    x, w, ct = data(CASE)

    def per_sample(x, w, ct):
        def loss(x, w, ct):
            return jnp.sum(ct * conv(x[:, None], w, **CASE.options, convention="convolution")[:, 0])

        return jax.vmap(jax.grad(loss), (1, None, 1), out_axes=1)(x, w, ct)

    sharded = jax.shard_map(per_sample, mesh=mesh, in_specs=(BATCH, REPLICATED, BATCH), out_specs=BATCH)
    check("input", jax.jit(sharded)(x, w, ct), ct, w, CASE, "convolution", "float64", fft=True)


def placed(case, mesh, layout):
    return [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(data(case), LAYOUTS[layout], strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_automatic_sharding(mesh, layout):
    """Under plain `jit` with sharded arguments XLA partitions what the algorithms emit."""
    assert_results(pullback(CASE, "auto")(*placed(CASE, mesh, layout)), CASE, "auto")


@pytest.mark.parametrize(("case", "dtype", "method"), ALGORITHMS)
def test_automatic_sharding_of_the_batch(mesh, case, dtype, method):
    arguments = placed(case, mesh, "batch")
    results = pullback(case, method)(*arguments)
    assert_results(results, case, method)
    assert results[0].sharding.is_equivalent_to(arguments[2].sharding, results[0].ndim)


@pytest.fixture
def explicit_mesh(two_devices):
    return Mesh(np.array(two_devices), ("i",), axis_types=(AxisType.Explicit,))


@pytest.mark.parametrize(
    ("layout", "case", "method"),
    [
        *(("batch", case, method) for case, _, method in (parameter.values for parameter in ALGORITHMS)),
        *((layout, CASE, "auto") for layout in LAYOUTS),
    ],
    ids=str,
)
def test_explicit_sharding(explicit_mesh, layout, case, method):
    """The types say how the result and the gradients are sharded: as the cotangent and the operands."""
    with jax.set_mesh(explicit_mesh):
        arguments = placed(case, explicit_mesh, layout)
        results = pullback(case, method)(*arguments)
        for result, like in zip(results, (arguments[2], *arguments[:2]), strict=True):
            assert jax.typeof(result).sharding.spec == jax.typeof(like).sharding.spec
        assert_results(results, case, method)


def test_sharded_sums_are_refused(explicit_mesh):
    """Input channels and spatial axes: an error with a remedy, as in `jax.lax`, not a wrong result."""
    x, w, _ = data(CASE)
    with jax.set_mesh(explicit_mesh):
        for spec in (PartitionSpec(None, None, "i"), PartitionSpec(None, None, None, None, "i")):
            sharded = jax.device_put(x, NamedSharding(explicit_mesh, spec))
            with pytest.raises((ValueError, TypeError), match=r"shard_map|reshard"):
                jax.jit(functools.partial(conv, **CASE.options))(sharded, w)


@pytest.mark.parametrize(
    ("layout", "axes"),
    [("batch", (-1, None)), ("batch", (-1, -1)), ("features", (None, -1)), ("groups", (-1, -1))],
    ids=str,
)
def test_vmap_over_a_trailing_axis_beside_a_sharded_one(explicit_mesh, layout, axes):
    """The mapped axis, which is whole, is folded behind the one that is sharded; in front of it JAX would raise."""
    size = 2
    shapes = (CASE.x_shape, CASE.w_shape, CASE.y_shape)
    stacked = [
        random((*shape, size) if axis is not None else shape, "float64", name)
        for shape, axis, name in zip(shapes, (*axes, -1), ("x", "w", "ct"), strict=True)
    ]
    wrap = functools.partial(jax.vmap, in_axes=axes, out_axes=-1)
    with jax.set_mesh(explicit_mesh):
        arguments = [
            jax.device_put(a, NamedSharding(explicit_mesh, s)) for a, s in zip(stacked, LAYOUTS[layout], strict=True)
        ]
        results = pullback(CASE, "auto", wrap)(*arguments)
        for result, like in zip(results, (arguments[2], *arguments[:2]), strict=True):
            assert jax.typeof(result).sharding.spec == jax.typeof(like).sharding.spec
    expected = jax.vjp(wrap(functools.partial(conv, **CASE.options, convention="convolution")), *stacked[:2])
    for result, value in zip(results, (expected[0], *expected[1](stacked[2])), strict=True):
        np.testing.assert_allclose(np.asarray(result), value, rtol=0, atol=1e-13)


def test_vmap_over_a_sharded_axis(explicit_mesh):
    """Then it leads, in front of a batch that is whole."""
    x, w, _ = data(CASE)
    xs = np.stack([x, 2 * x], axis=-1)
    function = jax.vmap(functools.partial(conv, **CASE.options, convention="convolution"), (-1, None), out_axes=-1)
    with jax.set_mesh(explicit_mesh):
        spec = PartitionSpec(*(None,) * x.ndim, "i")
        y = jax.jit(function)(jax.device_put(xs, NamedSharding(explicit_mesh, spec)), w)
        assert jax.typeof(y).sharding.spec == spec
    for i in range(2):
        check("value", np.asarray(y)[..., i], xs[..., i], w, CASE, "convolution", "float64", fft=True)
