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

from jaxconv._algorithms import REGISTRY
from jaxconv._ops import conv

from .cases import Case, operands, random
from .methods import may_use_fft
from .tolerances import check

CASE = Case("sharded", (7, 6), (3, 2), (2, 1), ((1, 1), (0, 1)), g=2, n=4, c=2, o=4)
REPLICATED = PartitionSpec()
# Sharded axis of x, of w and of y: batch, output channels, groups.
LAYOUTS = {
    "batch": (PartitionSpec(None, "i"), REPLICATED, PartitionSpec(None, "i")),
    "features": (REPLICATED, PartitionSpec(None, "i"), PartitionSpec(None, None, "i")),
    "groups": (PartitionSpec("i"), PartitionSpec("i"), PartitionSpec("i")),
}


@pytest.fixture
def mesh(two_devices):
    return Mesh(np.array(two_devices), ("i",))


def data():
    return (*operands(CASE, "float64"), random(CASE.y_shape, "float64", "ct"))


def assert_results(results, method):
    x, w, ct = data()
    y, dx, dw = results
    fft = may_use_fft(method)
    check("value", y, x, w, CASE, "convolution", "float64", fft=fft)
    check("input", dx, ct, w, CASE, "convolution", "float64", fft=fft)
    check("kernel", dw, ct, x, CASE, "convolution", "float64", fft=fft)


@pytest.mark.parametrize(
    ("layout", "method", "check_vma"),
    [
        *(("batch", name, check_vma) for name in REGISTRY for check_vma in (True, False)),
        *((layout, "auto", True) for layout in LAYOUTS),
    ],
)
def test_gradient_through_shard_map(mesh, layout, method, check_vma):
    x_spec, w_spec, y_spec = LAYOUTS[layout]
    function = jax.shard_map(
        functools.partial(conv, **CASE.options, convention="convolution", method=method),
        mesh=mesh,
        in_specs=(x_spec, w_spec),
        out_specs=y_spec,
        check_vma=check_vma,
    )

    @jax.jit
    def run(x, w, ct):
        y, pull = jax.vjp(function, x, w)
        return y, *pull(ct)

    assert_results(run(*data()), method)


@pytest.mark.parametrize("method", REGISTRY)
def test_gradient_inside_shard_map(mesh, method):
    """The training step that people write: a loss averaged over devices, differentiated within."""

    def step(x, w, ct):
        def loss(x, w):
            y = conv(x, w, **CASE.options, convention="convolution", method=method)
            return jax.lax.psum(jnp.sum(ct * y), "i"), y

        (_, y), (dx, dw) = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, w)
        return y, dx, dw

    batch = PartitionSpec(None, "i")
    sharded = jax.shard_map(step, mesh=mesh, in_specs=(batch, REPLICATED, batch), out_specs=(batch, batch, REPLICATED))
    assert_results(jax.jit(sharded)(*data()), method)


def test_forward_mode_inside_shard_map(mesh):
    x, w, ct = data()
    batch = PartitionSpec(None, "i")
    function = functools.partial(conv, **CASE.options, convention="convolution")
    sharded = jax.shard_map(
        lambda x, w, dw: jax.jvp(lambda w: function(x, w), (w,), (dw,)),
        mesh=mesh,
        in_specs=(batch, REPLICATED, REPLICATED),
        out_specs=(batch, batch),
    )
    dw = random(CASE.w_shape, "float64", "tangent")
    y, dy = jax.jit(sharded)(x, w, dw)
    check("value", y, x, w, CASE, "convolution", "float64", fft=True)
    check("value", dy, x, dw, CASE, "convolution", "float64", fft=True)
    assert ct.shape == y.shape


def test_per_sample_gradients_inside_shard_map(mesh):
    """`vmap` inside `shard_map`: the batching rule sees a varying and a replicated operand."""
    x, w, ct = data()

    def per_sample(x, w, ct):
        def loss(x, w, ct):
            return jnp.sum(ct * conv(x[:, None], w, **CASE.options, convention="convolution")[:, 0])

        return jax.vmap(jax.grad(loss), (1, None, 1), out_axes=1)(x, w, ct)

    batch = PartitionSpec(None, "i")
    sharded = jax.shard_map(per_sample, mesh=mesh, in_specs=(batch, REPLICATED, batch), out_specs=batch)
    check("input", jax.jit(sharded)(x, w, ct), ct, w, CASE, "convolution", "float64", fft=True)


@pytest.mark.parametrize(
    ("layout", "method"), [*(("batch", name) for name in REGISTRY), *((layout, "auto") for layout in LAYOUTS)]
)
def test_automatic_sharding(mesh, layout, method):
    """Under plain `jit` with sharded arguments XLA partitions what the algorithms emit."""
    x_spec, w_spec, y_spec = LAYOUTS[layout]
    specs = (x_spec, w_spec, y_spec)
    arguments = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(data(), specs, strict=True)]

    @jax.jit
    def run(x, w, ct):
        y, pull = jax.vjp(functools.partial(conv, **CASE.options, convention="convolution", method=method), x, w)
        return y, *pull(ct)

    results = run(*arguments)
    assert_results(results, method)
    if layout == "batch":
        assert results[0].sharding.is_equivalent_to(arguments[2].sharding, results[0].ndim)


@pytest.fixture
def explicit_mesh(two_devices):
    return Mesh(np.array(two_devices), ("i",), axis_types=(AxisType.Explicit,))


@pytest.mark.parametrize("method", REGISTRY)
def test_explicit_sharding(explicit_mesh, method):
    """A sharded batch: the type of the result says so, and gradients have the shardings of their operands."""
    specs = LAYOUTS["batch"]
    with jax.set_mesh(explicit_mesh):
        x, w, ct = (jax.device_put(a, NamedSharding(explicit_mesh, s)) for a, s in zip(data(), specs, strict=True))
        function = functools.partial(conv, **CASE.options, convention="convolution", method=method)

        @jax.jit
        def run(x, w, ct):
            y, pull = jax.vjp(function, x, w)
            results = y, *pull(ct)
            for result, like in zip(results, (ct, x, w), strict=True):
                assert jax.typeof(result).sharding.spec == jax.typeof(like).sharding.spec
            return results

        assert_results(run(x, w, ct), method)


def test_sharded_sums_are_refused(explicit_mesh):
    """Input channels and spatial axes: an error with a remedy, as in `jax.lax`, not a wrong result."""
    x, w, _ = data()
    with jax.set_mesh(explicit_mesh):
        for spec in (PartitionSpec(None, None, "i"), PartitionSpec(None, None, None, None, "i")):
            sharded = jax.device_put(x, NamedSharding(explicit_mesh, spec))
            with pytest.raises((ValueError, TypeError), match=r"shard_map|reshard"):
                jax.jit(functools.partial(conv, **CASE.options))(sharded, w)
