"""`jax.export`: several platforms from one machine, and symbolic sizes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxconv._algorithms import REGISTRY
from jaxconv._ops import conv
from jaxconv._plan import CHOICES

from .cases import FEW, Case, operands, random
from .methods import can, may_use_fft, parameters
from .tolerances import check

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    [*parameters(FEW, ("float32",), limit=1), *parameters(FEW[:1], ("float32",), CHOICES)],
)
def test_every_platform(case, dtype, method):
    """Value and gradients, lowered for platforms that this machine has not got."""
    x, w = operands(case, "float32")
    ct = random(case.y_shape, "float32", "ct")

    @jax.jit
    def run(x, w, ct):
        y, pull = jax.vjp(functools.partial(conv, **case.options, method=method), x, w)
        return y, *pull(ct)

    exported = export.export(run, platforms=PLATFORMS)(x, w, ct)
    assert exported.platforms == PLATFORMS
    y, dx, dw = exported.call(x, w, ct)
    check("value", y, x, w, case, "correlation", "float32", fft=may_use_fft(method))
    check("input", dx, ct, w, case, "correlation", "float32", fft=may_use_fft(method))
    check("kernel", dw, ct, x, case, "correlation", "float32", fft=may_use_fft(method))


def symbolic(shape: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float64)


@pytest.mark.parametrize(("method", "convention"), [("auto", "correlation"), ("direct", "convolution")])
def test_symbolic_batch(method, convention):
    """One program for every batch size, gradients included."""
    case = Case("symbolic", (6,), (3,), 2, ((1, 2),), g=2, n=4, c=3, o=2)

    @jax.jit
    def run(x, w):
        def loss(x, w):
            y = conv(x, w, **case.options, convention=convention, method=method)
            return jnp.sum(y**2) / 2, y

        (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, w)
        return y, *gradients

    exported = export.export(run, platforms=PLATFORMS)(symbolic("2, b, 3, 6"), symbolic("2, 2, 3, 3"))
    for batch in (1, 4):
        small = Case("symbolic", (6,), (3,), 2, ((1, 2),), g=2, n=batch, c=3, o=2)
        x, w = operands(small, "float64")
        y, dx, dw = (np.asarray(a) for a in exported.call(x, w))
        check("value", y, x, w, small, convention, "float64", fft=True)
        check("input", dx, y, w, small, convention, "float64", fft=True)
        check("kernel", dw, y, x, small, convention, "float64", fft=True)


def test_symbolic_batch_under_vmap():
    """The mapped axis is folded into the symbolic one."""
    case = Case("symbolic", (6,), (3,), n=2)
    function = jax.jit(jax.vmap(conv, (0, None)))
    program = export.export(function)(symbolic("m, 1, b, 1, 6"), symbolic("1, 1, 1, 3"))
    xs, w = random((3, *case.x_shape), "float64"), random(case.w_shape, "float64")
    for y, x in zip(program.call(xs, w), xs, strict=True):
        check("value", y, x, w, case, "correlation", "float64", fft=True)


@pytest.mark.parametrize("method", REGISTRY)
def test_named_algorithm_with_symbolic_batch(method):
    """Whatever was asked for, an exported program with symbolic sizes computes the right thing."""
    case = next(c for c in FEW if c.g == 1 and can(method, c, "float64"))
    function = jax.jit(functools.partial(conv, **case.options, method=method))
    x_shape = ("1", "b", *map(str, case.x_shape[2:]))
    program = export.export(function)(symbolic(", ".join(x_shape)), symbolic(", ".join(map(str, case.w_shape))))
    x, w = operands(case, "float64")
    check("value", program.call(x, w), x, w, case, "correlation", "float64", fft=True)


def test_symbolic_length():
    """A signal of any length, as long as the padding does not depend on it."""
    function = jax.jit(functools.partial(conv, padding=((2, 2),), convention="convolution"))
    program = export.export(function)(symbolic("1, 1, 1, n"), symbolic("1, 1, 1, 3"))
    for length in (5, 8):
        case = Case("symbolic", (length,), (3,), padding=2)
        x, w = operands(case, "float64")
        check("value", program.call(x, w), x, w, case, "convolution", "float64", fft=True)


@pytest.mark.parametrize("groups", [2, 9, 20, 40])
def test_symbolic_batch_with_groups(groups):
    """As few as are written out, and as many as are looped over or left to XLA."""
    case = Case("symbolic", (6,), (3,), padding=1, g=groups, n=2, c=1, o=2)
    function = jax.jit(functools.partial(conv, **case.options))
    program = export.export(function)(symbolic(f"{groups}, b, 1, 6"), symbolic(f"{groups}, 2, 1, 3"))
    x, w = operands(case, "float64")
    check("value", program.call(x, w), x, w, case, "correlation", "float64", fft=True)


def test_negative_padding_beside_symbolic_sizes():
    """XLA on CPU reads outside of the array: see docs/deviations.md."""
    case = Case("cropped", (15, 4, 8), (15, 1, 1), padding=((0, 0), (0, 0), (-5, 1)))
    function = jax.jit(functools.partial(conv, **case.options))
    program = export.export(function)(symbolic("1, 1, 1, 15, h, 8"), symbolic("1, 1, 1, 15, 1, 1"))
    x, w = operands(case, "float64")
    check("value", program.call(x, w), x, w, case, "correlation", "float64", fft=True)
