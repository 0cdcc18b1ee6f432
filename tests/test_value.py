"""The result of every algorithm against the definition."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv._algorithms import REGISTRY
from jaxconv._ops import conv
from jaxconv._plan import CHOICES

from .cases import (
    BY_NAME,
    CASES,
    COMPLEX,
    CONVENTIONS,
    CORE,
    DTYPES,
    FEW,
    FLOATS,
    INTEGERS,
    LIVE,
    Case,
    dtype_of,
    operands,
    random,
)
from .methods import can, may_use_fft, parameters
from .tolerances import assert_close, bound, check, exact

LOCAL = tuple(name for name, algorithm in REGISTRY.items() if algorithm.local)


def both_conventions(case: Case, **options):
    """One compiled function for the two conventions, since compiling is what takes the time."""
    one = functools.partial(conv, **case.options, **options)
    return jax.jit(lambda x, w: [one(x, w, convention=convention) for convention in CONVENTIONS])


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    [
        *parameters(CASES, ("float32",)),
        *parameters(CORE, ("complex128",)),
        *parameters(CORE, ("float32",), CHOICES),
        *parameters(FEW, ("float64", "bfloat16", "int32"), limit=2),
        *parameters(FEW, ("float16", "complex64", "int8", "int64", "uint8", "uint16", "uint32"), limit=1),
    ],
)
def test_every_algorithm(case, dtype, method):
    x, w = operands(case, dtype)
    results = both_conventions(case, method=method)(x, w)
    for convention, y in zip(CONVENTIONS, results, strict=True):
        check("value", y, x, w, case, convention, dtype, fft=may_use_fft(method))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_algorithm_is_tested(name):
    """The selection by `supports` must not silently deselect an algorithm altogether."""
    supported = {dtype: [case for case in LIVE if can(name, case, dtype)] for dtype in DTYPES}
    # The table has at least three problems for every algorithm, and one among the few that everything is tested on.
    dtypes = FLOATS + COMPLEX if REGISTRY[name].uses_fft else DTYPES
    for dtype in dtypes:
        assert len(supported[dtype]) >= 3, dtype
        assert set(FEW) & set(supported[dtype]), dtype


def test_some_algorithm_of_either_kind():
    assert {algorithm.uses_fft for algorithm in REGISTRY.values()} == {False, True}
    assert all(name == algorithm.name for name, algorithm in REGISTRY.items())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_defaults(convention):
    """Without options: unit steps, no padding; and correlation is the default convention."""
    case = Case("defaults", (6, 5), (2, 3), c=2, o=2)
    x, w = operands(case, "float64")
    y = conv(x, w) if convention == "correlation" else conv(x, w, convention=convention)
    check("value", y, x, w, case, convention, "float64", fft=True)


@pytest.mark.parametrize(("case", "dtype", "method"), parameters(FEW, ("float32",), limit=1))
def test_eager_equals_compiled(case, dtype, method):
    x, w = operands(case, dtype)
    y = conv(x, w, **case.options, method=method)
    assert isinstance(y, jax.Array)
    check("value", y, x, w, case, "correlation", dtype, fft=may_use_fft(method))


@pytest.mark.parametrize("names", [("shift", "fft", "xla"), ("fft", "direct", "auto"), ("auto", "xla", "shift")])
def test_first_of_a_triple(names):
    case = BY_NAME["2d-channels"]
    x, w = operands(case, "float64")
    for convention, y in zip(CONVENTIONS, both_conventions(case, method=names)(x, w), strict=True):
        check("value", y, x, w, case, convention, "float64", fft=may_use_fft(names[0]))
    text = jax.jit(functools.partial(conv, **case.options, method=names)).lower(x, w).as_text()
    assert ("stablehlo.fft" in text) == (names[0] == "fft")


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    parameters((*FEW, BY_NAME["2d-depthwise"]), ("float32",), limit=3),
)
def test_layout_is_only_a_hint(case, dtype, method):
    x, w = operands(case, dtype)
    for convention, y in zip(CONVENTIONS, both_conventions(case, method=method, channels_last=True)(x, w), strict=True):
        check("value", y, x, w, case, convention, dtype, fft=may_use_fft(method))


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype"),
    [
        ("float32", "float64"),
        ("float32", "complex64"),
        ("float64", "complex64"),
        ("bfloat16", "float32"),
        ("float16", "bfloat16"),
        ("int32", "float32"),
        ("int8", "int32"),
        ("uint8", "int8"),
    ],
)
def test_dtypes_are_promoted_as_by_jax(x_dtype, w_dtype):
    case = BY_NAME["1d-channels"]
    x, w = random(case.x_shape, x_dtype), random(case.w_shape, w_dtype)
    dtype = str(jnp.promote_types(x_dtype, w_dtype))
    y = conv(x, w, **case.options)
    # Promotion rounds the operands first: int32 in float32 has lost its last bits.
    x, w = x.astype(dtype_of(dtype)), w.astype(dtype_of(dtype))
    check("value", y, x, w, case, "correlation", dtype, fft=True)


@pytest.mark.parametrize(
    ("dtype", "preferred"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64"), ("int8", "int32"), ("uint8", "int32")],
)
@pytest.mark.parametrize("method", REGISTRY)
def test_preferred_element_type(dtype, preferred, method):
    """The sum is formed in the wider type: half precision loses nothing, integers do not wrap."""
    able = [case for case in FEW if can(method, case, preferred)]
    assert able or (REGISTRY[method].uses_fft and preferred in INTEGERS)
    for case in able[:1]:
        assert_preferred(case, dtype, preferred, method)


def assert_preferred(case, dtype, preferred, method):
    x, w = operands(case, dtype)
    for convention, y in zip(
        CONVENTIONS,
        both_conventions(case, method=method, preferred_element_type=dtype_of(preferred))(x, w),
        strict=True,
    ):
        expected = exact("value", x, w, case, convention)
        allowed = bound("value", x, w, case, convention, preferred, may_use_fft(method))
        assert_close(y, expected, allowed, preferred)
        assert np.any(expected != expected.astype(dtype_of(dtype)).astype(expected.dtype))


@pytest.mark.parametrize(("dtype", "count"), [("bfloat16", 300), ("float16", 2050)])
@pytest.mark.parametrize("method", REGISTRY)
def test_half_precision_is_only_for_storage(dtype, count, method):
    """A running sum of ones in half precision stops at 256 (bfloat16) or 2048 (float16)."""
    cases = [
        Case("ones", (count,), (count,)),
        Case("many-ones", (count + 9000,), (count,)),
        Case("spread-ones", (2 * count,), (count,), rhs_dilation=2),
        Case("ones-in-a-volume", (1, 1, count), (1, 1, count)),
        Case("ones-twice", (count + 1,), (count,), n=2),
        Case("ones-across-channels", (6,), (1,), c=count, o=2),
    ]
    case = next(case for case in cases if can(method, case, dtype))
    x, w = np.ones(case.x_shape, dtype_of(dtype)), np.ones(case.w_shape, dtype_of(dtype))
    y = np.asarray(conv(x, w, **case.options, method=method)).astype("float32")
    assert set(y.ravel()) == {count}


@pytest.mark.parametrize(
    ("case", "dtype", "method"),
    parameters(
        [
            *(BY_NAME[name] for name in ("1d-channels", "1d-long-signal-stride", "1d-few-outputs")),
            BY_NAME["2d-mixed-dilations"],
            Case("2d-left-over", (13, 14), (2, 3), (3, 4), n=2, c=2, o=3),
            Case("1d-left-over", (29,), (3,), (3,), n=2, c=2, o=3),
            Case("1d-phases", (6,), (3,), padding=2, lhs_dilation=2, n=2),
            Case("2d-phases", (4, 5), (5, 3), padding=2, lhs_dilation=(3, 2), n=2, c=2, o=3),
        ],
        ("float32",),
        ("direct", *LOCAL),
    ),
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_values_stay_local(case, dtype, method, value):
    """What `method="direct"` promises and an FFT cannot: one bad sample spoils only the outputs that read it."""
    x, w = operands(case, dtype)
    function = jax.jit(functools.partial(conv, **case.options, method=method))
    for place in (0, x.size // 2, x.size - 1):
        spoilt, mark = x.copy(), np.zeros(x.shape)
        spoilt.reshape(-1)[place], mark.reshape(-1)[place] = value, 1
        reads = exact("value", mark, np.abs(w), case, "correlation") != 0
        np.testing.assert_array_equal(np.isfinite(function(spoilt, w)), ~reads)


def test_direct_never_transforms():
    """Not even where an FFT would be faster by far."""
    x, w = jax.ShapeDtypeStruct((1, 1, 1, 100_000), "float32"), jax.ShapeDtypeStruct((1, 1, 1, 50_000), "float32")
    for method, transforms in (("direct", False), ("auto", True)):
        text = jax.jit(functools.partial(conv, method=method)).lower(x, w).as_text()
        assert ("stablehlo.fft" in text) == transforms


def test_integers_default_to_exact():
    """`auto` must not send integers through an FFT, whatever the size."""
    x = jnp.full((1, 1, 1, 5000), 2**30 + 1, "int32")
    w = jnp.full((1, 1, 1, 2500), 3, "int32")
    expected = (2500 * 3 * (2**30 + 1) + 2**31) % 2**32 - 2**31
    np.testing.assert_array_equal(conv(x, w), np.full((1, 1, 1, 2501), expected))


@pytest.mark.x32
def test_without_x64():
    case = BY_NAME["2d-channels"]
    x, w = operands(case, "float64")
    y = conv(x, w, **case.options)
    x, w = x.astype("float32"), w.astype("float32")
    check("value", y, x, w, case, "correlation", "float32", fft=True)
