"""Inside loops, under checkpointing, and what is handed to XLA there."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxconv._ops import conv

from . import oracle
from .cases import BY_NAME, FEW, Case, operands, random
from .methods import may_use_fft, parameters
from .tolerances import check

STEPS = 3
# As many samples and channels out as in, so that the result can be the loop's state.
ENDO = (
    Case("endo", (6,), (3,), padding=1, n=2, c=2, o=2),
    Case("endo-long", (70,), (3,), padding=1, c=2, o=2),
    Case("endo-dilated", (6,), (3,), padding=2, rhs_dilation=2, n=2, c=2, o=2),
    Case("endo-volume", (3, 2, 4), (3, 1, 3), padding=((1, 1), (0, 0), (1, 1)), c=2, o=2),
    Case("endo-long-kernel", (6,), (13,), padding=6, n=3, c=2, o=2),
)


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(FEW, ("float32",), limit=1))
def test_scan_over_inputs(case, dtype, method):
    """A shared kernel: results of every step, and the gradients through the scan, the kernel's summed over steps."""
    _, w = operands(case, dtype)
    xs, cts = random((STEPS, *case.x_shape), dtype, "x"), random((STEPS, *case.y_shape), dtype, "ct")

    def run(xs, w):
        def step(carry, x):
            y = conv(x, w, **case.options, convention="convolution", method=method)
            return carry + 1, y

        return lax.scan(step, 0, xs)[1]

    @jax.jit
    def both(xs, w):
        ys, pull = jax.vjp(run, xs, w)
        return ys, *pull(cts)

    ys, dxs, dw = both(xs, w)
    for y, dx, x, ct in zip(ys, dxs, xs, cts, strict=True):
        check("value", y, x, w, case, "convolution", dtype, fft=may_use_fft(method))
        check("input", dx, ct, w, case, "convolution", dtype, fft=may_use_fft(method))
    folded = [np.concatenate(list(a), axis=1) for a in (cts, xs)]  # summed over steps as over the batch
    check("kernel", dw, *folded, case, "convolution", dtype, fft=may_use_fft(method))


def by_scan(step, x):
    return lax.scan(lambda x, _: (step(x), None), x, None, length=STEPS)[0]


def by_fori_loop(step, x):
    return lax.fori_loop(0, STEPS, lambda _, x: step(x), x)


def by_checkpointed_scan(step, x):
    return by_scan(jax.checkpoint(step), x)


def by_checkpoint(step, x):
    return jax.checkpoint(lambda x: step(step(step(x))))(x)


def by_while_loop(step, x):
    return lax.while_loop(lambda state: state[0] < STEPS, lambda state: (state[0] + 1, step(state[1])), (0, x))[1]


def states(x, w, geometry):
    """The states of the loop by the oracle."""
    result = [x]
    for _ in range(STEPS):
        result.append(oracle.conv(result[-1], w, geometry))
    return result


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(ENDO, ("float64",), limit=1))
@pytest.mark.parametrize("loop", [by_scan, by_fori_loop, by_checkpointed_scan, by_checkpoint])
def test_state_of_a_loop(loop, case, dtype, method):
    """The state convolved again and again by one kernel: the value, and both gradients by backpropagation."""
    x, w = operands(case, dtype)
    ct = random(case.y_shape, dtype, "ct")

    @jax.jit
    def run(x, w):
        def final(x, w):
            return loop(lambda x: conv(x, w, **case.options, method=method), x)

        y, pull = jax.vjp(final, x, w)
        return y, *pull(ct)

    y, dx, dw = run(x, w)
    geometry = case.geometry()
    *before, last = states(x, w, geometry)
    np.testing.assert_allclose(y, last, rtol=0, atol=1e-13 * np.abs(last).max())
    back, kernel = ct, 0
    for state in reversed(before):
        kernel = kernel + oracle.kernel_adjoint(back, state, w.shape, geometry)
        back = oracle.input_adjoint(back, w, x.shape, geometry)
    np.testing.assert_allclose(dx, back, rtol=0, atol=1e-13 * np.abs(back).max())
    np.testing.assert_allclose(dw, kernel, rtol=0, atol=1e-13 * np.abs(kernel).max())


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(ENDO, ("float64",), limit=1))
def test_while_loop(case, dtype, method):
    """A number of steps that is not known beforehand, which JAX differentiates in forward mode only."""
    x, w = operands(case, dtype)
    dw = random(w.shape, dtype, "tangent")
    geometry = case.geometry()

    def final(w):
        return by_while_loop(lambda x: conv(x, w, **case.options, method=method), x)

    y, dy = jax.jit(lambda w, dw: jax.jvp(final, (w,), (dw,)))(w, dw)
    *before, last = states(x, w, geometry)
    tangent = np.zeros_like(x)
    for state in before:
        tangent = oracle.conv(tangent, w, geometry) + oracle.conv(state, dw, geometry)
    np.testing.assert_allclose(y, last, rtol=0, atol=1e-13 * np.abs(last).max())
    np.testing.assert_allclose(dy, tangent, rtol=0, atol=1e-13 * np.abs(tangent).max())


CHANNELS_LAST = re.compile(r"\[b, ([\d, ]*)f\]x\[([\d, ]*)i, o\]->\[b, ([\d, ]*)f\]")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["1d-channels", "2d-channels", "1d-everything", "1d-depthwise", "3d-plain"])
def test_xla_convolutions_are_channels_last(name, channels_last):
    """Forward, gradients and per-model batches: any other layout is 20 times slower in a loop on the CPU."""
    case = BY_NAME[name]
    xs, ws = random((2, *case.x_shape), "float32"), random((2, *case.w_shape), "float32")

    def loss(x, w):
        return jnp.sum(conv(x, w, **case.options, method="xla", channels_last=channels_last) ** 2)

    def run(xs, ws):
        single = jax.value_and_grad(loss, (0, 1))(xs[0], ws[0])
        return single, jax.vmap(jax.grad(loss, (0, 1)), (0, None))(xs, ws[0]), jax.vmap(jax.grad(loss, (0, 1)))(xs, ws)

    text = jax.jit(run).lower(xs, ws).as_text()
    layouts = re.findall(r"dim_numbers = (\S.*?),\s*window", text)
    assert len(layouts) >= 9
    for layout in layouts:
        match = CHANNELS_LAST.fullmatch(layout)
        assert match, layout
        assert len({re.sub(r"\s", "", axes).strip(",") for axes in match.groups()}) == 1, layout


@pytest.mark.parametrize(("dtype", "layout"), [("float32", "[b, 0, f]"), ("float64", "[b, 0, 1, f]")])
def test_double_precision_is_left_to_a_library(dtype, layout):
    """XLA on CPU hands convolutions along two axes to one, and computes others naively in double precision."""
    x, w = random((1, 2, 3, 20), dtype, "x"), random((1, 40, 3, 4), dtype, "w")
    text = jax.jit(lambda x, w: conv(x, w, method="xla")).lower(x, w).as_text()
    assert f"dim_numbers = {layout}x" in text


def test_models_in_scan_are_not_grouped():
    """`vmap` over a few models must not meet XLA's grouped convolution, many times slower than separate ones."""
    case = BY_NAME["2d-channels"]
    xs, ws = random((4, *case.x_shape), "float32"), random((4, *case.w_shape), "float32")

    def loss(x, w):
        return jnp.sum(conv(x, w, **case.options, method="xla") ** 2)

    text = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1)))).lower(xs, ws).as_text()
    groups = re.findall(r"feature_group_count = (\d+)", text)
    assert groups
    assert set(groups) == {"1"}
    assert set(re.findall(r"batch_group_count = (\d+)", text)) <= {"1"}


@pytest.mark.x32
def test_input_and_kernel_keep_their_places():
    """XLA exchanges a kernel with a smaller input, into a form that it computes 20 times slower, unless prevented."""
    x, w = random((1, 2, 3, 7, 7), "float32", "x"), random((1, 4, 3, 8, 8), "float32", "w")

    def ours(x, w):
        return conv(x, w, padding=((1, 2), (2, 1)), method="xla")

    def plain(x, w):
        return lax.conv_general_dilated(x[0], w[0], (1, 1), ((1, 2), (2, 1)))

    np.testing.assert_allclose(ours(x, w)[0], plain(x, w), rtol=1e-4, atol=1e-4)
    reversed_window = ["rhs_reversal" in jax.jit(fn).lower(x, w).compile().as_text() for fn in (ours, plain)]
    assert reversed_window == [False, True], "if XLA no longer does that, the barrier in the algorithm xla can go"


@pytest.mark.x32
def test_sums_are_evaluated_once():
    """XLA on CPU would evaluate a sum again in each operation that reads it."""
    taps, length = 7, 64
    x, w = random((5, 2, 1, length), "float32", "x"), random((5, 1, 1, taps), "float32", "w")

    def ours(x, w):
        return conv(x, w, method="shift")

    def plain(x, w):
        return sum(x[..., k : k + length - taps + 1] * w[..., k : k + 1] for k in range(taps))

    def read(convolve):
        def run(x, w):
            y = convolve(x, w)
            return jnp.maximum(y, 0), jnp.where(y > 0, 1, 0), jnp.exp(y)

        return jax.jit(run).lower(x, w).compile().as_text()

    np.testing.assert_allclose(ours(x, w), plain(x, w), rtol=1e-5, atol=1e-5)
    products = [read(convolve).count(" multiply(") for convolve in (ours, plain)]
    assert products == [taps, 3 * taps], "if XLA evaluates the plain sum once, the call in the algorithms can go"
