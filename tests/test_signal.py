"""`jaxconv.signal` against `scipy.signal`: values, shapes, errors, and derivatives of every function."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import jaxconv
from jaxconv import _ops, signal
from jaxconv._algorithms import REGISTRY
from jaxconv._plan import CHOICES

from .cases import COMPLEX, DTYPES, INTEGERS, dtype_of, random
from .tolerances import epsilon

MODES = ("full", "same", "valid")
METHODS = (*CHOICES, *REGISTRY)
# Those that compute each output from its own window of the input.
LOCAL = ("direct", *(name for name, algorithm in REGISTRY.items() if algorithm.local))
ANY_RANK = ("convolve", "correlate")
TWO_DIMENSIONAL = ("convolve2d", "correlate2d")
# For functions that would compile for seconds to run for microseconds.
quickly_compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

REAL, BOTH, MIXED = ("float64", "float64"), ("complex128", "complex128"), ("float64", "complex128")

# Lengths even and odd, kernels shorter, longer and as long, lengths of 1, and ranks 0 to 3.
SHAPES = [
    ((8,), (3,)),
    ((9,), (4,)),
    ((7,), (8,)),
    ((4,), (11,)),
    ((6,), (6,)),
    ((1,), (4,)),
    ((5,), (1,)),
    ((), ()),
    ((6, 5), (3, 2)),
    ((3, 4), (6, 5)),
    ((4, 6), (5, 3)),  # neither contains the other
    ((5, 1), (2, 3)),
    ((4, 3, 5), (2, 3, 2)),
    ((2, 3, 2), (3, 4, 5)),
]


def modes_of(shape1, shape2):
    """The modes that SciPy allows for two shapes."""
    pairs = list(zip(shape1, shape2, strict=True))
    nested = all(a >= b for a, b in pairs) or all(a <= b for a, b in pairs)
    return MODES if nested else MODES[:2]


def pair(shape1, shape2, dtype, dtype2=None):
    return random(shape1, dtype, "in1"), random(shape2, dtype2 or dtype, "in2")


def supported(call, *arrays):
    """Whether the algorithm that a call asks for can run it, as told by the error that it raises otherwise."""
    try:
        jax.eval_shape(call, *arrays)
    except ValueError as error:
        if "cannot compute" not in str(error):
            raise
        return False
    return True


def wide(array):
    """The same numbers in double precision; integers as they are."""
    array = np.asarray(array)
    if array.dtype.kind in "iu":
        return array
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def reference(name, in1, in2, mode, **options):
    """SciPy's result in double precision, by its direct method."""
    if name not in TWO_DIMENSIONAL and name != "fftconvolve":
        options["method"] = "direct"
    with np.errstate(over="ignore"):
        return np.asarray(getattr(scipy.signal, name)(wide(in1), wide(in2), mode, **options))


def assert_close(actual, expected, in1, in2, dtype):
    """Assert shape, dtype and that the error is that of a sum of products (Cauchy-Schwarz) or of an FFT (in norm)."""
    actual = np.asarray(actual)
    assert actual.dtype == dtype_of(dtype)
    assert actual.shape == expected.shape
    if dtype in INTEGERS:
        np.testing.assert_array_equal(actual, expected.astype(actual.dtype))
        return
    assert expected.size == 0 or np.any(expected != 0), "the test is vacuous: everything expected is zero"
    arithmetic = "float32" if dtype in ("float16", "bfloat16") else dtype
    in1, in2 = wide(in1), wide(in2)
    terms = max(min(in1.size, in2.size), 4 * math.log2(in1.size + in2.size)) * (4 if dtype in COMPLEX else 1)
    bound = terms * epsilon(arithmetic) * np.linalg.norm(in1.ravel()) * np.linalg.norm(in2.ravel())
    error = np.abs(wide(actual) - expected)
    assert np.all(error <= bound + epsilon(dtype) * np.abs(expected)), f"error {error.max()}, allowed {bound}"


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shapes", "methods"),
    [
        *itertools.product(["float64"], SHAPES, [("auto",)]),
        ("float64", SHAPES[1], METHODS),
        ("complex128", SHAPES[9], METHODS),
        *itertools.product(["complex128"], [SHAPES[7], SHAPES[13]], [("auto",)]),
        *itertools.product(["int32"], [SHAPES[2], SHAPES[9]], [LOCAL]),
        *itertools.product(["float16", "bfloat16", "complex64"], SHAPES[:1], [("auto", "fft")]),
        *itertools.product([d for d in INTEGERS if d != "int32"], [SHAPES[3]], [("auto",)]),
    ],
)
def test_convolve_and_correlate(dtype, shapes, methods):
    """Every mode; integers over the whole range of their dtype wrap as NumPy's do."""
    in1, in2 = pair(*shapes, dtype)
    cases = []
    for name, mode, method in itertools.product(ANY_RANK, modes_of(*shapes), methods):
        call = functools.partial(getattr(signal, name), mode=mode, method=method)
        if supported(call, in1, in2):
            cases.append((name, mode, call))
        else:
            assert method not in ("auto", "direct", "xla")
    results = quickly_compiled(lambda a, b: [call(a, b) for _, _, call in cases])(in1, in2)
    for (name, mode, _), result in zip(cases, results, strict=True):
        assert_close(result, reference(name, in1, in2, mode), in1, in2, dtype)


@pytest.mark.parametrize("method", METHODS)
def test_long_signals(method):
    """Sizes at which the planner has a choice, in the precision that people use."""
    in1, in2 = pair((3001,), (601,), "float32")
    for name in ANY_RANK:
        call = functools.partial(getattr(signal, name), mode="same", method=method)
        if supported(call, in1, in2):
            assert_close(call(in1, in2), reference(name, in1, in2, "same"), in1, in2, "float32")
        else:
            assert method not in ("auto", "direct", "xla", "fft")


def test_modes_by_their_definition():
    """The definition itself, independently of SciPy: ``same`` is ``full[(M - 1) // 2:][:N]``."""
    in1, in2 = pair((7,), (4,), "float64")
    full = np.convolve(in1, in2)
    np.testing.assert_allclose(signal.convolve(in1, in2), full, rtol=1e-12)
    np.testing.assert_allclose(signal.convolve(in1, in2, "same"), full[1:8], rtol=1e-12)
    np.testing.assert_allclose(signal.convolve(in1, in2, "valid"), full[3:7], rtol=1e-12)


def test_exact_integers_beyond_floating_point():
    """Sums that neither float32 (2^24) nor float64 (2^53) can hold come out exactly."""
    in1 = np.array([2**24 + 1, 3, 2**20 - 1], np.int32)
    in2 = np.array([1, 2**6 + 1, -5], np.int32)
    for method in ("auto", "direct"):
        np.testing.assert_array_equal(signal.convolve(in1, in2, method=method), np.convolve(in1, in2))
    large = np.array([2**53 + 1, 2**61 - 1, -(2**62) + 3], np.int64)
    result = signal.correlate(large, np.array([1, 3], np.int64))
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, np.correlate(large, [1, 3], "full"))


@pytest.mark.x32
def test_exact_integers_without_x64():
    in1 = np.array([2**24 + 1, 3, 2**20 - 1], np.int64)  # canonicalised to int32
    result = signal.convolve(in1, [1, 2**6 + 1, -5])
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, np.convolve(in1, [1, 2**6 + 1, -5]))


@pytest.mark.parametrize(
    ("shape1", "shape2", "axes"),
    [
        ((7,), (4,), None),
        ((3,), (6,), 0),
        ((), (), None),
        ((5, 6), (3, 2), None),
        ((5, 6), (5, 4), 1),
        ((5, 6), (1, 4), [-1]),
        ((1, 6), (5, 4), 1),
        ((1, 6), (4, 3), None),  # length-1 axes broadcast even if they are among the axes
        ((5, 1), (3, 4), None),
        ((4, 5, 1, 6), (1, 5, 3, 2), [3]),
        ((2, 5, 3), (2, 2, 3), np.int64(1)),
        ((4, 3, 2, 5), (2, 2, 3, 4), None),  # more axes than one call of XLA's FFT transforms
    ],
)
def test_fftconvolve(shape1, shape2, axes):
    in1, in2 = pair(shape1, shape2, "float64")
    if len(shape1) == 2:
        in1 = in1 + 1j * np.flip(in1)
    modes = [mode for mode in MODES if _accepts(in1, in2, mode, axes)]
    results = jax.jit(lambda a, b: [signal.fftconvolve(a, b, mode, axes) for mode in modes])(in1, in2)
    for mode, result in zip(modes, results, strict=True):
        expected = reference("fftconvolve", in1, in2, mode, axes=axes)
        assert_close(result, expected, in1, in2, str(in1.dtype))


def _accepts(in1, in2, mode, axes):
    try:
        scipy.signal.fftconvolve(in1, in2, mode, axes)
    except ValueError:
        return False
    return True


def test_fftconvolve_of_integers_and_half_precision():
    in1, in2 = [1, 2, 3], np.array([4, 5], np.int16)
    result = signal.fftconvolve(in1, in2)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [4, 13, 22, 15], rtol=1e-12)
    half = signal.fftconvolve(np.array(in1, np.float16), np.array(in2, np.float16))
    assert half.dtype == np.float16  # SciPy returns float32
    np.testing.assert_allclose(half, [4, 13, 22, 15], rtol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "shapes"),
    [
        ("float64", ((5, 6), (3, 4))),
        ("float64", ((4, 3), (7, 6))),
        ("float64", ((4, 6), (5, 3))),
        ("float64", ((1, 2), (1, 9))),
        ("complex128", ((4, 3), (4, 6))),
        ("complex128", ((4, 3), (2, 2))),
    ],
)
def test_two_dimensional(dtype, shapes):
    """Every boundary, also under kernels so long that the image is repeated or mirrored several times."""
    in1, in2 = pair(*shapes, dtype)
    cases = [
        (name, mode, options)
        for name in TWO_DIMENSIONAL
        for mode in modes_of(*shapes)
        for options in (
            {"boundary": "fill"},
            {"boundary": "fill", "fillvalue": 1.5},
            {"boundary": "wrap"},
            {"boundary": "symm"},
        )
        if (mode != "valid" or options == {"boundary": "symm"}) and (mode == "valid" or dtype == "float64")
    ]
    results = jax.jit(lambda a, b: [getattr(signal, name)(a, b, mode, **options) for name, mode, options in cases])(
        in1, in2
    )
    # The bound is a norm; what is read of the extended image is at most as often repeated as the kernel covers it.
    extended = np.tile(np.concatenate([in1.ravel(), [2.0]]), 9)
    for (name, mode, options), result in zip(cases, results, strict=True):
        expected = reference(name, in1, in2, mode, **options)
        if name == "correlate2d" and mode == "valid" and in2.size > in1.size:
            expected = np.conj(expected)  # SciPy's contradicts its own `correlate`
            np.testing.assert_allclose(expected, scipy.signal.correlate(in1, in2, "valid"), rtol=1e-10)
        assert_close(result, expected, extended, in2, dtype)


@pytest.mark.parametrize("method", ["direct", "xla", "shift", ("direct", "shift", "xla")])
def test_two_dimensional_integers_and_methods(method):
    in1, in2 = pair((6, 5), (3, 2), "int8")
    for name, boundary in (("convolve2d", "symm"), ("correlate2d", "fill")):
        result = getattr(signal, name)(in1, in2, "same", boundary, -3, method)
        assert_close(result, reference(name, in1, in2, "same", boundary=boundary, fillvalue=-3), in1, in2, "int8")


def test_other_names_of_boundaries():
    in1, in2 = pair((4, 3), (3, 3), "float64")
    for name, synonym in (("fill", "pad"), ("wrap", "circular"), ("symm", "symmetric")):
        np.testing.assert_array_equal(
            signal.convolve2d(in1, in2, boundary=name), signal.convolve2d(in1, in2, boundary=synonym)
        )


def test_fillvalue():
    """Traced, complex, one-element and truncated fill values; SciPy's results."""
    in1, in2 = pair((4, 3), (3, 3), "float64")
    call = jax.jit(lambda fill, kernel: signal.convolve2d(in1, kernel, fillvalue=fill))
    for fill, kernel in ((2.0, in2), (-0.5, in2), (1 - 2j, in2.astype(complex)), (np.array([3.0]), in2)):
        expected = scipy.signal.convolve2d(in1, kernel, fillvalue=fill)
        np.testing.assert_allclose(call(fill, kernel), expected, rtol=1e-12, atol=1e-12)
    integers = np.arange(6, dtype=np.int32).reshape(2, 3)
    np.testing.assert_array_equal(
        signal.convolve2d(integers, integers, fillvalue=1.7), scipy.signal.convolve2d(integers, integers, fillvalue=1.7)
    )
    # Each sample of a batch may have a fill value of its own, and the result is linear in it.
    fills = np.array([0.0, 1.0, -2.5])
    batched = jax.vmap(lambda fill: signal.convolve2d(in1, in2, fillvalue=fill))(fills)
    np.testing.assert_allclose(
        batched, [scipy.signal.convolve2d(in1, in2, fillvalue=f) for f in fills], rtol=1e-12, atol=1e-12
    )
    slope = jax.grad(lambda fill: signal.convolve2d(in1, in2, fillvalue=fill).sum())(0.3)
    np.testing.assert_allclose(slope, (batched[1] - batched[0]).sum(), rtol=1e-12)


# --- deviations from SciPy -------------------------------------------------------------------------------------------


def test_correlation_lags():
    """The lags are those of the entries of `correlate`, which SciPy's are not for an odd and an even length."""
    off_by_one = set()
    for n, m in itertools.product(range(1, 9), repeat=2):
        for mode in MODES:
            lags = np.asarray(signal.correlation_lags(n, m, mode))
            # The correlation of two unit impulses has its one at the distance between them.
            in1, in2 = np.eye(n)[n // 2], np.eye(m)[m // 2]
            correlation = scipy.signal.correlate(in1, in2, mode)
            assert lags.shape == correlation.shape
            np.testing.assert_array_equal(lags[correlation > 0.5], np.intersect1d(lags, n // 2 - m // 2))
            assert np.all(np.diff(lags) == 1)
            if not np.array_equal(lags, scipy.signal.correlation_lags(n, m, mode)):
                off_by_one.add((n % 2, m % 2, mode))
    assert off_by_one == {(1, 0, "same")}
    assert signal.correlation_lags(5, 3).dtype == np.int64


def test_same_of_an_even_kernel():
    """As in SciPy, `correlate2d` starts one sample after `correlate`."""
    in1, in2 = pair((6, 7), (4, 2), "float64")
    full = np.asarray(signal.correlate(in1, in2))
    np.testing.assert_allclose(signal.correlate(in1, in2, "same"), full[1:7, 0:7], atol=1e-12)
    np.testing.assert_allclose(signal.correlate2d(in1, in2, "same"), full[2:8, 1:8], atol=1e-12)


def test_exchanging_the_arguments():
    in1, in2 = pair((4, 6), (3, 7), "complex128")
    np.testing.assert_allclose(signal.convolve(in1, in2), signal.convolve(in2, in1), atol=1e-12)
    exchanged = np.conj(np.flip(signal.correlate(in2, in1)))
    np.testing.assert_allclose(signal.correlate(in1, in2), exchanged, atol=1e-12)
    np.testing.assert_allclose(signal.correlate(in1, in2), signal.convolve(in1, jaxconv.flip(np.conj(in2))), atol=1e-12)


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x64", [True, False])
def test_dtypes_are_promoted_as_in_jax(x64):
    with jax.enable_x64(x64):
        for first, second in itertools.combinations_with_replacement(DTYPES, 2):
            in1, in2 = np.zeros(3, dtype_of(first)), np.zeros(2, dtype_of(second))
            expected = jnp.result_type(in1, in2)
            for call in (signal.convolve, signal.correlate):
                assert jax.eval_shape(call, in1, in2).dtype == expected
            floating = expected if jnp.issubdtype(expected, jnp.inexact) else jnp.result_type(float)
            assert jax.eval_shape(signal.fftconvolve, in1, in2).dtype == floating


def test_mixed_dtypes():
    for first, second, result in (
        ("int32", "float32", "float32"),
        ("float32", "complex128", "complex128"),
        ("uint8", "int8", "int16"),
        ("bfloat16", "float32", "float32"),
    ):
        in1, in2 = (a.astype(dtype_of(result)) for a in pair((6,), (3,), first, second))
        original1, original2 = pair((6,), (3,), first, second)
        assert_close(signal.convolve(original1, original2), reference("convolve", in1, in2, "full"), in1, in2, result)


def test_array_likes():
    np.testing.assert_array_equal(signal.convolve([1, 2, 3], (0, 1, 5)), [0, 1, 7, 13, 15])
    np.testing.assert_array_equal(signal.correlate([[1, 2]], [[1j]]), [[-1j, -2j]])
    np.testing.assert_array_equal(signal.convolve2d([[1, 2], [3, 4]], [[1, 1]]), [[1, 3, 2], [3, 7, 4]])
    np.testing.assert_allclose(signal.fftconvolve([1.0, 2.0], [3.0]), [3, 6], rtol=1e-12)
    # A list is one argument of the compiled function, not thousands.
    np.testing.assert_array_equal(signal.convolve(list(range(5000)), [1, 1], "valid"), np.arange(1, 9999, 2))


def test_scalars():
    assert signal.convolve(2, 3) == 6
    assert signal.convolve(2, 3).shape == ()
    assert signal.correlate(2, 3j) == -6j
    assert signal.correlate(2j, 3j, "same", "direct") == 6
    assert signal.fftconvolve(2.0, 3, "valid") == 6
    assert signal.convolve(jnp.float32(2), 3).dtype == np.float32
    assert signal.convolve(np.float32(2), jnp.bfloat16(3)).dtype == np.float32


def test_views():
    """Strided, reversed, transposed and read-only arrays of NumPy."""
    base = np.arange(60.0).reshape(6, 10)
    base.setflags(write=False)
    kernel = np.arange(12.0).reshape(4, 3)[::-2]
    for view in (base[::2, 1::3], base[::-1, ::-2], base.T, np.asfortranarray(base)):
        np.testing.assert_allclose(signal.convolve(view, kernel), scipy.signal.convolve(view, kernel), rtol=1e-12)


def test_empty_inputs():
    """Where SciPy's direct method raises, so do we; its FFT returns nothing."""
    empty, some = np.zeros(0), np.ones(2)
    assert signal.convolve(empty, some, "same").shape == (0,)
    assert signal.correlate(np.zeros((0, 3)), np.ones((2, 2)), "same").shape == (0, 3)
    assert signal.convolve2d(np.zeros((0, 3)), np.ones((2, 2)), "same", "wrap").shape == (0, 3)
    for mode in MODES:
        assert signal.fftconvolve(empty, some, mode).shape == (0,)
        assert signal.fftconvolve(np.ones((2, 2)), np.zeros((0, 2)), mode).shape == (0,)


def test_a_second_call_is_a_compiled_one(monkeypatch):
    """Nothing is traced, and so nothing planned, in a call of a shape and dtype that has been seen."""
    in1, in2 = [[1.0, 2.0, 3.0]], np.array([[4.0, 5.0]])

    def call_all():
        for name in (*ANY_RANK, *TWO_DIMENSIONAL, "fftconvolve"):
            getattr(signal, name)(in1, in2, mode="same")
            getattr(signal, name)(jnp.asarray(in1), jnp.asarray(in2), mode="same")

    call_all()
    monkeypatch.setattr(_ops, "conv", lambda *_, **__: pytest.fail("traced again"))
    call_all()
    with pytest.raises(pytest.fail.Exception, match="traced again"):
        signal.convolve(in1, in2, mode="valid")


def test_precision_is_accepted():
    in1, in2 = pair((5, 5), (2, 2), "float32")
    for precision in (None, "highest", jax.lax.Precision.DEFAULT, ("high", "highest")):
        for name in (*ANY_RANK, *TWO_DIMENSIONAL, "fftconvolve"):
            assert jax.eval_shape(functools.partial(getattr(signal, name), precision=precision), in1, in2).shape == (
                6,
                6,
            )


def test_under_strict_settings():
    """Nothing inside relies on implicit promotion of dtypes or ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for dtype in ("float32", "complex64", "bfloat16", "int32"):
            in1, in2 = pair((6, 5), (3, 2), dtype)
            jax.eval_shape(lambda a, b: signal.convolve2d(a, b, boundary="wrap"), in1, in2)
            jax.jit(lambda a, b: signal.correlate(a, b, "same")).lower(in1, in2)
            jax.jit(lambda a, b: signal.fftconvolve(a, b)).lower(in1, in2)


ERRORS = [
    (
        "convolve",
        ([1.0], [1.0]),
        {"mode": "fill"},
        ValueError,
        r"unknown mode 'fill': choose one of 'full', 'same', 'valid'",
    ),
    ("correlate", ([1.0], [1.0]), {"mode": None}, ValueError, "unknown mode None"),
    (
        "convolve",
        ([1.0], [1.0]),
        {"method": "fast"},
        ValueError,
        r"unknown method 'fast': choose one of 'auto', 'direct'",
    ),
    ("convolve", ([1.0], [1.0]), {"method": ("fft", "xla")}, ValueError, "triple"),
    ("convolve", ([1, 2], [1, 2]), {"method": "fft"}, ValueError, "an FFT cannot give exact results for int64"),
    (
        "convolve",
        ([1.0, 2.0], [[1.0]]),
        {},
        ValueError,
        r"got 1 and 2 \(shapes \(2,\) and \(1, 1\)\): add axes of length 1",
    ),
    ("fftconvolve", ([1.0, 2.0], 1.0), {}, ValueError, "same number of dimensions, got 1 and 0"),
    ("convolve", (np.ones((5, 3)), np.ones((3, 5))), {"mode": "valid"}, ValueError, r"\(5, 3\) and \(3, 5\)"),
    ("fftconvolve", (np.ones((5, 3)), np.ones((3, 5))), {"mode": "valid"}, ValueError, r"\(5, 3\) and \(3, 5\)"),
    ("correlate2d", (np.ones((5, 3)), np.ones((3, 5))), {"mode": "valid"}, ValueError, r"\(5, 3\) and \(3, 5\)"),
    ("convolve", ([], [1.0]), {}, ValueError, r"must not be empty, got shapes \(0,\) and \(1,\)"),
    ("correlate", ([1.0], []), {"mode": "same"}, ValueError, r"must not be empty, got shapes \(1,\) and \(0,\)"),
    ("convolve2d", (np.ones((2, 0)), np.ones((1, 1))), {}, ValueError, r"must not be empty, got shapes \(2, 0\)"),
    ("convolve", ([True, False], [1, 2]), {}, TypeError, "in1 has dtype bool"),
    ("fftconvolve", ([1.0], [True]), {}, TypeError, "in2 has dtype bool"),
    ("convolve2d", ([1.0], [1.0]), {}, ValueError, r"must be two-dimensional, got shapes \(1,\) and \(1,\)"),
    (
        "correlate2d",
        (np.ones((2, 2)), [1.0]),
        {},
        ValueError,
        r"must be two-dimensional, got shapes \(2, 2\) and \(1,\)",
    ),
    (
        "convolve2d",
        ([[1.0]], [[1.0]]),
        {"boundary": "mirror"},
        ValueError,
        "unknown boundary 'mirror': choose one of 'fill'",
    ),
    ("convolve2d", ([[1.0]], [[1.0]]), {"fillvalue": [1, 2]}, ValueError, r"scalar, got shape \(2,\)"),
    (
        "convolve2d",
        ([[1.0]], [[1.0]]),
        {"fillvalue": 1j},
        ValueError,
        "fillvalue is complex, but the result is float64",
    ),
    ("convolve", ([1.0], [1.0]), {"precision": 3}, ValueError, "precision must be None"),
    (
        "fftconvolve",
        (np.ones((2, 3)), np.ones((2, 3))),
        {"axes": 2},
        ValueError,
        "between -2 and 1 for arrays of rank 2",
    ),
    ("fftconvolve", (np.ones((2, 3)), np.ones((2, 3))), {"axes": [1, -1]}, ValueError, r"unique, got \(1, 1\)"),
    ("fftconvolve", (np.ones((2, 3)), np.ones((2, 3))), {"axes": []}, ValueError, "must not be empty"),
    (
        "fftconvolve",
        (np.ones((2, 3)), np.ones((2, 3))),
        {"axes": 1.0},
        TypeError,
        "integer or a sequence of integers, got 1.0",
    ),
    ("fftconvolve", (np.ones((2, 3)), np.ones((4, 3))), {"axes": 1}, ValueError, r"axis 0 is not convolved over"),
]


@pytest.mark.parametrize(("name", "arguments", "options", "error", "message"), ERRORS)
def test_errors(name, arguments, options, error, message):
    """The same error in a plain call, under `jit`, and in a batch."""
    call = functools.partial(getattr(signal, name), **options)
    with pytest.raises(error, match=message):
        call(*arguments)
    arrays = [np.asarray(argument) for argument in arguments]
    with pytest.raises(error, match=message):
        jax.jit(call)(*arrays)
    with pytest.raises(error, match=message):
        jax.vmap(call)(*(np.stack([array, array]) for array in arrays))


def test_errors_of_correlation_lags():
    with pytest.raises(ValueError, match="must be positive, got 0 and 3"):
        signal.correlation_lags(0, 3)
    with pytest.raises(TypeError, match="float"):
        signal.correlation_lags(4.0, 3)
    with pytest.raises(ValueError, match="unknown mode 'all'"):
        signal.correlation_lags(4, 3, "all")


# --- what "direct" promises ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LOCAL)
def test_direct_methods_keep_nan_in_its_place(method):
    in1, in2 = pair((60,), (5,), "float64")
    if not supported(functools.partial(signal.convolve, method=method), in1, in2):
        assert method not in ("direct", "xla", "shift")
        return
    clean = np.asarray(signal.convolve(in1, in2, method=method))
    spoilt = in1.copy()
    spoilt[20], spoilt[40] = np.nan, np.inf
    result = np.asarray(signal.convolve(spoilt, in2, method=method))
    touched = np.zeros(64, bool)
    touched[20:25] = touched[40:45] = True
    np.testing.assert_array_equal(np.isfinite(result), ~touched)
    np.testing.assert_array_equal(result[~touched], clean[~touched])
    # The gradient of the input meets the cotangent's NaN in the same way.
    _, pull = jax.vjp(lambda x: signal.convolve(x, in2, method=method), in1)
    cotangent = np.ones(64)
    cotangent[30] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(pull(cotangent)[0])), np.arange(26, 31))


def test_direct_rules_out_an_fft_in_the_gradients():
    in1, in2 = np.ones(3000), np.ones(2500)

    def lowered(method):
        gradient = jax.grad(lambda a, b: (signal.correlate(a, b, method=method) ** 2).sum(), (0, 1))
        return jax.jit(gradient).lower(in1, in2).as_text()

    assert "fft" in lowered("fft")
    assert "fft" in lowered("auto")
    for method in ("direct", "xla", ("direct", "direct", "xla")):
        assert "fft" not in lowered(method)


@pytest.mark.parametrize("lengths", [(40, 7), (7, 40)])
@pytest.mark.parametrize("name", ANY_RANK)
def test_method_triples(name, lengths):
    """One algorithm for the result and one for each gradient, of in1 and of in2 whichever of them is longer."""
    in1, in2 = (np.ones(length, np.float32) for length in lengths)
    for triple in itertools.permutations(("fft", "shift", "xla")):
        call = functools.partial(getattr(signal, name), mode="same", method=triple)
        chosen = [jaxconv.plan(call, in1, in2)[0].forward.chosen]
        for argument in (0, 1):
            report = jaxconv.plan(jax.grad(lambda a, b, call=call: call(a, b).sum(), argument), in1, in2)
            chosen.append(report[-1].forward.chosen)
        assert tuple(chosen) == triple
    with pytest.raises(ValueError, match="the gradient of its"):
        signal.convolve([1, 2], [3], method=("direct", "fft", "direct"))


# --- transformations -------------------------------------------------------------------------------------------------


def check_derivatives(call, *arrays):
    """First and second derivatives of a function that is linear in each argument.

    Central differences of such a function, and of its gradient, are exact but for rounding. A complex gradient is, as
    everywhere in JAX, the one with ``dL = Re(sum(gradient * tangent))``.
    """
    weights = random(jax.eval_shape(call, *arrays).shape, "complex128", "weights")
    tangents = [random(np.shape(a), str(np.asarray(a).dtype), f"tangent {i}") for i, a in enumerate(arrays)]
    everything = tuple(range(len(arrays)))

    def loss(*args):
        return jnp.real(jnp.sum(weights * call(*args)))

    @quickly_compiled
    def compute(args, tangents):
        gradient = jax.grad(loss, everything)
        plus, minus = (tuple(a + sign * t for a, t in zip(args, tangents, strict=True)) for sign in (1, -1))
        difference = jax.tree.map(
            lambda p, m: (p - m) / 2, (loss(*plus), gradient(*plus)), (loss(*minus), gradient(*minus))
        )
        forward = jax.jvp(loss, args, tangents)[1]
        reverse = sum(jnp.real(jnp.sum(g * t)) for g, t in zip(gradient(*args), tangents, strict=True))
        second = jax.jvp(gradient, args, tangents)[1]
        backward = jax.grad(
            lambda *a: sum(jnp.real(jnp.sum(g * t)) for g, t in zip(gradient(*a), tangents, strict=True)), everything
        )
        return forward, reverse, second, backward(*args), difference

    forward, reverse, second, backward, (slope, curvature) = compute(tuple(arrays), tuple(tangents))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(forward, slope, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(reverse, slope, rtol=1e-9, atol=1e-9)
    for array, one, other, exact in zip(arrays, second, backward, curvature, strict=True):
        assert one.shape == np.shape(array)
        assert one.dtype == np.asarray(array).dtype
        assert np.any(np.abs(exact) > 1e-3)
        np.testing.assert_allclose(one, exact, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(other, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "shapes", "dtypes", "options"),
    [
        ("convolve", ((7,), (4,)), REAL, {"mode": "same"}),
        ("convolve", ((7,), (4,)), MIXED, {}),
        ("convolve", ((3,), (8,)), BOTH, {"mode": "same", "method": "fft"}),
        ("correlate", ((7,), (4,)), BOTH, {"mode": "same", "method": "direct"}),
        ("correlate", ((3,), (8,)), MIXED, {}),
        ("correlate", ((4, 3), (5, 6)), REAL, {"mode": "valid"}),
        ("correlate", ((), ()), BOTH, {}),
        ("fftconvolve", ((4, 1, 6), (4, 3, 3)), REAL, {"mode": "same", "axes": 2}),
        ("fftconvolve", ((5, 4), (2, 3)), BOTH, {}),
        ("convolve2d", ((4, 5), (3, 2)), MIXED, {"boundary": "wrap"}),
        ("correlate2d", ((3, 3), (4, 4)), BOTH, {"boundary": "symm", "mode": "same"}),
    ],
)
def test_derivatives(name, shapes, dtypes, options):
    call = functools.partial(getattr(signal, name), **options)
    check_derivatives(call, *pair(*shapes, *dtypes))


def test_gradient_of_a_correlation_is_conjugated():
    """d/d(in2) of ``sum(c * correlate(x, w))``: the correlation conjugates w, so that the gradient meets conj(x c)."""
    x, w = pair((5,), (3,), "complex128")
    c = random((7,), "complex128", "c")
    gradient = jax.grad(lambda w: jnp.real(jnp.sum(c * signal.correlate(x, w))))(w)
    # z[l] = sum_k x[k + l] conj(w[k]) for l = -2..4, hence dL = Re(sum_k conj(dw[k]) sum_l c[l] x[k + l]).
    padded = np.pad(x, 2 + 2)
    expected = [np.sum(c * padded[2 + k : 2 + k + 7]) for k in range(3)]
    np.testing.assert_allclose(gradient, np.conj(expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("convolve", ((7,), (4,)), {"mode": "same"}),
        ("correlate", ((3,), (8,)), {}),
        ("fftconvolve", ((1, 6), (3, 3)), {}),
        ("correlate2d", ((4, 5), (3, 2)), {"boundary": "symm"}),
    ],
)
def test_vmap(name, shapes, options):
    """Over the first, the second and both arguments, on any axis, twice; value and gradient."""
    call = functools.partial(getattr(signal, name), **options)
    in1, in2 = random((3, *shapes[0]), "complex128", "in1"), random((3, *shapes[1]), "complex128", "in2")
    expected = np.array([[reference(name, a, b, **{"mode": "full", **options}) for b in in2] for a in in1])
    diagonal = expected[np.arange(3), np.arange(3)]
    last1, last2 = np.moveaxis(in1, 0, -1), np.moveaxis(in2, 0, -1)

    def loss(a, b):
        return jnp.sum(jnp.abs(call(a, b)) ** 2)

    @quickly_compiled
    def compute(in1, in2, last1, last2):
        return (
            jax.vmap(call, (0, None))(in1, in2[0]),
            jax.vmap(call, (None, 0), -1)(in1[0], in2),
            jax.vmap(call, (-1, 0))(last1, in2),
            jax.vmap(jax.vmap(call, (None, -1)), (0, None))(in1, last2),
            jax.vmap(jax.grad(loss, (0, 1)))(in1, in2),
            jax.grad(loss, (0, 1))(in1[1], in2[1]),
        )

    first, second, both, nested, batched, single = compute(in1, in2, last1, last2)
    np.testing.assert_allclose(first, expected[:, 0], atol=1e-11)
    np.testing.assert_allclose(second, np.moveaxis(expected[0], 0, -1), atol=1e-11)
    np.testing.assert_allclose(both, diagonal, atol=1e-11)
    np.testing.assert_allclose(nested, expected, atol=1e-11)
    for argument in (0, 1):
        np.testing.assert_allclose(batched[argument][1], single[argument], atol=1e-9)


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_scan(method):
    """A loop whose body convolves, value and gradient, against the same loop written out."""
    x, w = pair((16,), (5,), "float64")

    def step(carry):
        return jnp.tanh(signal.convolve(carry, w, "same", method))

    def scanned(x):
        return jax.lax.scan(lambda carry, _: (step(carry), None), x, length=3)[0]

    def unrolled(x):
        return step(step(step(x)))

    value = jax.jit(scanned)(x)
    expected = x
    for _ in range(3):
        expected = np.tanh(scipy.signal.convolve(expected, w, "same"))
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)
    ours, theirs = jax.jit(lambda x: [jax.grad(lambda x, f=f: f(x).sum())(x) for f in (scanned, unrolled)])(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_exported_with_a_symbolic_batch_and_a_symbolic_length():
    kernel = np.array([1.0, 2.0, 3.0])
    scope = jax.export.SymbolicScope()
    shape = jax.export.symbolic_shape("batch, length", scope=scope)
    exported = jax.export.export(jax.jit(jax.vmap(lambda x: signal.convolve(x, kernel, "same"))))(
        jax.ShapeDtypeStruct(shape, np.float64)
    )
    for shape in ((2, 9), (3, 2)):
        x = random(shape, "float64", "x")
        expected = [scipy.signal.convolve(row, kernel, "same") for row in x]
        np.testing.assert_allclose(exported.call(x), expected, atol=1e-12)
