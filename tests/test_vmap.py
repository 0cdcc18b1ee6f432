"""Batching over the input, the kernel or both equals a loop, wherever the mapped axis stands."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv._ops import conv

from .cases import BY_NAME, FEW, operands, random
from .methods import may_use_fft, parameters
from .tolerances import check

SIZE = 3


def stacked(case, dtype, size=SIZE):
    return random((size, *case.x_shape), dtype, "x"), random((size, *case.w_shape), dtype, "w")


def move(array, axis):
    return np.moveaxis(array, 0, axis)


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(FEW, ("float64",), limit=1))
def test_one_level(case, dtype, method):
    """A batch over x only, w only, and both, its axis at the back or in between (below: in front)."""
    xs, ws = stacked(case, dtype)
    x, w = operands(case, dtype)
    function = functools.partial(conv, **case.options, convention="convolution", method=method)

    @jax.jit
    def run(x, w, xs_last, xs_third, ws_second):
        return (
            jax.vmap(function, (-1, None), out_axes=1)(xs_last, w),
            jax.vmap(function, (None, 1), out_axes=-1)(x, ws_second),
            jax.vmap(function, (2, 1), out_axes=2)(xs_third, ws_second),
        )

    over_x, over_w, over_both = run(x, w, move(xs, -1), move(xs, 2), move(ws, 1))
    for results, first, second in (
        (np.moveaxis(over_x, 1, 0), xs, [w] * SIZE),
        (np.moveaxis(over_w, -1, 0), [x] * SIZE, ws),
        (np.moveaxis(over_both, 2, 0), xs, ws),
    ):
        assert len(results) == SIZE
        for y, a, b in zip(results, first, second, strict=True):
            check("value", y, a, b, case, "convolution", dtype, fft=may_use_fft(method))


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(FEW, ("float64",), limit=1))
def test_nested(case, dtype, method):
    """Every input with every kernel, and a batch of batches of both."""
    xs, ws = stacked(case, dtype)
    function = functools.partial(conv, **case.options, method=method)

    @jax.jit
    def run(xs, ws):
        outer = jax.vmap(jax.vmap(function, (None, 0)), (0, None))(xs, ws)
        twice = jax.vmap(jax.vmap(function), (None, 0))(xs, jnp.stack([ws, 2 * ws]))
        return outer, twice

    outer, twice = run(xs, ws)
    assert outer.shape == (SIZE, SIZE, *case.y_shape)
    for i in range(SIZE):
        for j in range(SIZE):
            check("value", outer[i, j], xs[i], ws[j], case, "correlation", dtype, fft=may_use_fft(method))
        for scale in (1, 2):
            y = twice[scale - 1, i]
            check("value", y, xs[i], scale * ws[i], case, "correlation", dtype, fft=may_use_fft(method))


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(FEW, ("float64",), limit=1))
def test_gradients_per_sample(case, dtype, method):
    """`vmap(grad)` over samples of a shared kernel, and over independent models (both operands)."""
    xs, ws = stacked(case, dtype)
    _, w = operands(case, dtype)
    ct = random(case.y_shape, dtype, "ct")

    def loss(x, w):
        return jnp.sum(ct * conv(x, w, **case.options, convention="convolution", method=method))

    gradients = jax.grad(loss, (0, 1))
    shared, models = jax.jit(lambda xs, w, ws: (jax.vmap(gradients, (0, None))(xs, w), jax.vmap(gradients)(xs, ws)))(
        xs, w, ws
    )
    for results, kernels in ((shared, [w] * SIZE), (models, ws)):
        for dx, dw, x, kernel in zip(*results, xs, kernels, strict=True):
            check("input", dx, ct, kernel, case, "convolution", dtype, fft=may_use_fft(method))
            check("kernel", dw, ct, x, case, "convolution", dtype, fft=may_use_fft(method))


def test_gradient_of_a_batch():
    """`grad(vmap)`: the gradient of a shared kernel is the sum over the batch."""
    case = BY_NAME["1d-everything"]
    xs, _ = stacked(case, "float64")
    _, w = operands(case, "float64")
    cts = random((SIZE, *case.y_shape), "float64", "ct")
    dw = jax.grad(lambda w: jnp.sum(cts * jax.vmap(lambda x: conv(x, w, **case.options))(xs)))(w)
    folded = [np.concatenate(list(a), axis=1) for a in (cts, xs)]  # the batch axis n
    check("kernel", dw, *folded, case, "correlation", "float64", fft=True)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_zero_and_one(size, axes):
    case = BY_NAME["1d-everything"]
    xs, ws = stacked(case, "float64", size)
    x, w = operands(case, "float64")
    arguments = (x if axes[0] is None else xs, w if axes[1] is None else ws)
    batched = jax.vmap(functools.partial(conv, **case.options), axes)
    y = batched(*arguments)
    assert y.shape == (size, *case.y_shape)
    for row in y:
        a, b = (argument if axis is None else argument[0] for argument, axis in zip(arguments, axes, strict=True))
        check("value", row, a, b, case, "correlation", "float64", fft=True)
    gradients = jax.grad(lambda x, w: batched(x, w).sum(), (0, 1))(*arguments)
    assert [g.shape for g in gradients] == [a.shape for a in arguments]
    assert all(np.any(np.asarray(g) != 0) == bool(size) for g in gradients)


def test_forward_mode_under_vmap():
    case = BY_NAME["1d-everything"]
    xs, ws = stacked(case, "float64")
    x, w = operands(case, "float64")
    push = jax.vmap(lambda dx, dw: jax.jvp(functools.partial(conv, **case.options), (x, w), (dx, dw))[1])
    for y, dx, dw in zip(push(xs, ws), xs, ws, strict=True):
        expected = [np.asarray(conv(*pair, **case.options)) for pair in ((dx, w), (x, dw))]
        np.testing.assert_allclose(y, sum(expected), rtol=0, atol=1e-13)


def test_batching_keeps_one_convolution():
    """Folded into the batch, the outputs or the groups: never a loop."""
    case = BY_NAME["1d-everything"]
    xs, ws = stacked(case, "float64")
    x, w = operands(case, "float64")
    for axes, arguments in (((0, None), (xs, w)), ((None, 0), (x, ws)), ((0, 0), (xs, ws))):
        equations = jax.make_jaxpr(jax.vmap(functools.partial(conv, **case.options), axes))(*arguments).eqns
        assert sum("spec" in e.params for e in equations) == 1
        assert not {"scan", "while"} & {e.primitive.name for e in equations}
