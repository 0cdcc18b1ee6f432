"""Reverse mode: both adjoints of every algorithm against the transpose of the definition, and higher orders."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv._ops import conv
from jaxconv._plan import CHOICES

from .cases import BY_NAME, CASES, CONVENTIONS, CORE, FEW, Case, dtype_of, operands, random
from .methods import may_use_fft, parameters
from .tolerances import assert_close, bound, check, exact


def pullbacks(case: Case, conventions=CONVENTIONS, **options):
    """One compiled function (x, w, ct) -> [(dx, dw)] for the given conventions."""

    def pull(convention, x, w, ct):
        return jax.vjp(functools.partial(conv, **case.options, convention=convention, **options), x, w)[1](ct)

    return jax.jit(lambda x, w, ct: [pull(convention, x, w, ct) for convention in conventions])


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    [
        *parameters(CASES, ("float32",)),
        *parameters(FEW, ("float32",), CHOICES),
        *parameters(FEW, ("float64", "complex128", "bfloat16"), limit=1),
    ],
)
def test_adjoints(case, dtype, method):
    x, w = operands(case, dtype)
    ct = random(case.y_shape, dtype, "ct")
    # Either convention in turn where there are many cases: compiling the gradients of both takes the suite's time.
    conventions = CONVENTIONS if case in CORE else CONVENTIONS[CASES.index(case) % 2 :][:1]
    gradients = pullbacks(case, conventions, method=method)(x, w, ct)
    for convention, (dx, dw) in zip(conventions, gradients, strict=True):
        check("input", dx, ct, w, case, convention, dtype, fft=may_use_fft(method))
        check("kernel", dw, ct, x, case, convention, dtype, fft=may_use_fft(method))


@pytest.mark.parametrize("method", ["xla", "shift", "fft"])
def test_second_order_in_both_modes(method):
    """Against finite differences of the function and of its derivatives, forward, reverse and mixed.

    One small problem, since this compiles dozens of programs, by algorithms that can run it; exact second derivatives
    by every algorithm are in test_jvp.py and test_linear_transpose.py.
    """
    case = Case("small", (5,), (2,), 2, ((-1, 3),), 3, 2, g=2)
    x, w = operands(case, "float64")
    function = jax.jit(functools.partial(conv, **case.options, convention="convolution", method=method))
    assert np.all(np.any(np.asarray(function(x, w)) != 0, axis=-1))
    check_grads(function, (x, w), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(FEW, ("float16",), limit=1))
def test_mixed_dtypes(case, dtype, method):
    """Half-precision operands, float32 result: the cotangent is float32, the gradients are the operands' dtype."""
    x, w = operands(case, dtype)
    ct = random(case.y_shape, "float32", "ct")
    gradients = pullbacks(case, method=method, preferred_element_type=jnp.float32)(x, w, ct)
    for convention, (dx, dw) in zip(CONVENTIONS, gradients, strict=True):
        for form, actual, other in (("input", dx, w), ("kernel", dw, x)):
            allowed = bound(form, ct, other, case, convention, "float32", may_use_fft(method))
            assert_close(actual, exact(form, ct, other, case, convention), allowed, dtype)


def test_promoted_operand_keeps_its_dtype():
    case = BY_NAME["1d-channels"]
    x, w = random(case.x_shape, "float32"), random(case.w_shape, "float64")
    ct = random(case.y_shape, "float64", "ct")
    dx, dw = jax.vjp(functools.partial(conv, **case.options), x, w)[1](ct)
    check("input", dx, ct, w, case, "correlation", "float32", fft=True)
    check("kernel", dw, ct, x, case, "correlation", "float64", fft=True)


def test_conjugation_is_left_to_the_caller():
    """The pullback is the transpose, complex or not: `test_adjoints` shows it; here, that grad is JAX's convention."""
    case = BY_NAME["1d-channels"]
    x, w = operands(case, "complex128")

    def energy(x):
        y = conv(x, w, **case.options)
        return jnp.sum(y.real**2 + y.imag**2)

    y = exact("value", x, w, case, "correlation")
    # JAX's gradient of a real function of x is its derivative in Re x, minus i times that in Im x.
    gradient = 2 * exact("input", y.conj(), w, case, "correlation")
    np.testing.assert_allclose(jax.grad(energy)(x), gradient, rtol=1e-12)


def fft_in(function, *arguments) -> bool:
    return "stablehlo.fft" in jax.jit(function).lower(*arguments).as_text()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (("fft", "direct", "direct"), (True, False, False)),
        (("direct", "fft", "direct"), (False, True, False)),
        (("direct", "direct", "fft"), (False, False, True)),
        (("shift", "xla", "fft"), (False, False, True)),
        ("fft", (True, True, True)),
        ("direct", (False, False, False)),
        ("xla", (False, False, False)),
    ],
)
def test_method_of_each_direction(method, expected, convention):
    """Forward, input gradient, kernel gradient; also two derivatives further, where the roles come round again."""
    case = BY_NAME["2d-image"]
    x, w = operands(case, "float64")
    y = random(case.y_shape, "float64")
    forward = functools.partial(conv, **case.options, method=method, convention=convention)
    (by_input,) = (lambda ct, w: jax.linear_transpose(lambda x: forward(x, w), x)(ct)[0],)
    (by_kernel,) = (lambda ct, x: jax.linear_transpose(lambda w: forward(x, w), w)(ct)[0],)
    assert (fft_in(forward, x, w), fft_in(by_input, y, w), fft_in(by_kernel, y, x)) == expected

    # The transposes of the input gradient dx(ct, w) are the forward in ct and the kernel gradient in w.
    assert fft_in(lambda x, w: jax.linear_transpose(lambda ct: by_input(ct, w), y)(x), x, w) == expected[0]
    assert fft_in(lambda x, y: jax.linear_transpose(lambda w: by_input(y, w), w)(x), x, y) == expected[2]
    # Those of the kernel gradient dw(ct, x) are the forward in ct and the input gradient in x.
    assert fft_in(lambda x, w: jax.linear_transpose(lambda ct: by_kernel(ct, x), y)(w), x, w) == expected[0]
    assert fft_in(lambda y, w: jax.linear_transpose(lambda x: by_kernel(y, x), x)(w), y, w) == expected[1]


def test_direct_gradients_never_transform():
    """Not even where an FFT would be faster by far; `auto` takes it there."""
    x, w = jax.ShapeDtypeStruct((1, 1, 1, 60_000), "float32"), jax.ShapeDtypeStruct((1, 1, 1, 30_000), "float32")
    for method, transforms in (("direct", False), ("auto", True)):
        for argument in (0, 1):
            gradient = jax.grad(lambda x, w, method=method: jnp.sum(conv(x, w, method=method) ** 2), argument)
            assert fft_in(gradient, x, w) == transforms


@pytest.mark.parametrize(("case", "dtype", "method"), parameters([Case("long", (420,), (70,))], ("float64",)))
def test_gradient_that_its_algorithm_cannot_run(case, dtype, method):
    """A long signal: the kernel gradient has one tap per output sample, which few algorithms take; another one does."""
    x, w = operands(case, dtype)
    ct = random(case.y_shape, dtype, "ct")
    dx, dw = pullbacks(case, method=method)(x, w, ct)[0]
    check("input", dx, ct, w, case, "correlation", dtype, fft=may_use_fft(method))
    check("kernel", dw, ct, x, case, "correlation", dtype, fft=may_use_fft(method))


def test_integers_have_no_gradient():
    x = jnp.ones((1, 1, 1, 4), dtype_of("int32"))
    with pytest.raises(TypeError, match="int32"):
        jax.grad(lambda x: conv(x, x).sum())(x)
