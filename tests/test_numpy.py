"""`jaxconv.numpy` against NumPy: values, dtypes, modes, errors, and derivatives."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxconv

from .cases import random

quickly_compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
NAMES = ("convolve", "correlate")
MODES = ("full", "same", "valid")
# Lengths even and odd, either argument the longer one, equal lengths, and ones.
LENGTHS = [(7, 3), (8, 4), (7, 4), (8, 3), (3, 7), (4, 8), (4, 7), (3, 8), (5, 5), (4, 4), (1, 4), (5, 1), (1, 1)]


def all_modes(module, pairs, **options):
    return [getattr(module, name)(a, v, mode, **options) for name in NAMES for mode in MODES for a, v in pairs]


@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("complex128", "complex128"), ("float64", "complex128")])
def test_values(dtypes, method):
    pairs = [(random((n,), dtypes[0], "a"), random((m,), dtypes[1], "v")) for n, m in LENGTHS]
    pairs = pairs if method == "direct" else pairs[:3] + pairs[4:8]
    mine = quickly_compiled(functools.partial(all_modes, jaxconv.numpy, method=method))(pairs)
    for result, expected in zip(mine, all_modes(np, pairs), strict=True):
        assert result.dtype == expected.dtype
        assert np.any(expected != 0)
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("bool", "bool"), "bool"),
        (("bool", "int16"), "int16"),
        (("uint8", "uint8"), "uint8"),
        (("int32", "uint8"), "int32"),
        (("int64", "bool"), "int64"),
        (("float32", "float32"), "float32"),
        (("complex64", "float32"), "complex64"),
    ],
)
def test_dtypes(dtypes, expected):
    """Where NumPy and JAX promote alike, including sums that wrap around and logical sums."""
    a, v = (np.asarray([0, 100, 0, 3, 0, 70, 120]).astype(dtypes[0]), np.asarray([0, 3, 1, 0]).astype(dtypes[1]))
    pairs = [(a, v), (v, a)]
    mine = quickly_compiled(functools.partial(all_modes, jaxconv.numpy))(pairs)
    for result, value in zip(mine, all_modes(np, pairs), strict=True):
        assert result.dtype == value.dtype == expected
        np.testing.assert_allclose(result, value, rtol=1e-6)


def test_half_precision():
    a, v = random((9,), "bfloat16", "a"), random((4,), "bfloat16", "v")
    result = jaxconv.numpy.convolve(a, v)
    assert result.dtype == "bfloat16"
    exact = np.convolve(a.astype(float), v.astype(float))
    np.testing.assert_allclose(result.astype(float), exact, rtol=2**-8, atol=2**-8 * np.abs(exact).max())


@pytest.mark.parametrize("mode", MODES)
def test_exchanged_arguments(mode):
    a, v = random((4,), "complex128", "a"), random((7,), "complex128", "v")
    exchanged = jaxconv.numpy.correlate(v, a, mode)
    np.testing.assert_allclose(jaxconv.numpy.correlate(a, v, mode), exchanged[::-1].conj(), rtol=1e-12, atol=1e-12)


def test_forms_of_the_arguments():
    np.testing.assert_array_equal(jaxconv.numpy.convolve([1, 2, 3], (0, 1, 5)), [0, 1, 7, 13, 15])
    np.testing.assert_array_equal(jaxconv.numpy.convolve(3, [1, 2]), np.convolve(3, [1, 2]))
    np.testing.assert_array_equal(jaxconv.numpy.convolve(np.float64(3), 4), np.convolve(np.float64(3), 4))
    np.testing.assert_array_equal(jaxconv.numpy.correlate([1, 2, 3], [0, 1, 5], method=["direct"] * 3), [17])
    for name in NAMES:
        mine = inspect.signature(getattr(jaxconv.numpy, name)).parameters
        positional = {k: p.default for k, p in mine.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY}
        theirs = inspect.signature(getattr(np, name)).parameters
        assert positional == {k: p.default for k, p in theirs.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("a", "v", "options", "error", "message", "numpy_raises"),
    [
        ([], [1.0], {}, ValueError, "a must not be empty", True),
        ([1.0], [], {}, ValueError, "v must not be empty", True),
        ([[1, 2]], [1], {}, ValueError, r"a must be one-dimensional, got shape \(1, 2\): for more", True),
        ([1, 2], [[1]], {}, ValueError, r"v must be one-dimensional, got shape \(1, 1\)", True),
        ([1, 2], [1], {"mode": "valued"}, ValueError, "unknown mode 'valued': choose one of 'full', 'same'", True),
        ([1, 2], [1], {"mode": 2}, ValueError, "unknown mode 2: choose one of 'full', 'same', 'valid'", False),
        ([1, 2], [1], {"method": "fast"}, ValueError, "unknown method 'fast': choose one of 'auto'", False),
        ([1, 2], [1], {"method": "fft"}, ValueError, "cannot give exact results", False),
        ([1, 2], [1], {"precision": "exact"}, ValueError, "precision must be None, a jax.lax.Precision", False),
    ],
)
def test_errors(name, a, v, options, error, message, numpy_raises):
    call = functools.partial(getattr(jaxconv.numpy, name), **options)
    a, v = np.asarray(a), np.asarray(v)
    for run in (call, jax.jit(call)):
        with pytest.raises(error, match=message):
            run(a, v)
    if numpy_raises:
        with pytest.raises(error):
            getattr(np, name)(a, v, **options)


def test_numbers_are_no_sequences_for_correlate():
    with pytest.raises(ValueError, match=r"a must be one-dimensional, got shape \(\)"):
        jaxconv.numpy.correlate(3, [1, 2])
    with pytest.raises(ValueError, match="too small depth"):
        np.correlate(3, [1, 2])


@pytest.mark.parametrize(("name", "lengths"), [("convolve", (6, 4)), ("correlate", (4, 6))])
def test_derivatives(name, lengths):
    a, v = (random((n,), "float64", str(n)) for n in lengths)
    call = functools.partial(getattr(jaxconv.numpy, name), mode="same")
    check_grads(call, (a, v), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap(axes):
    a = random((3, 4) if axes[0] == 0 else (4,), "complex128", "a")
    v = random((3, 6) if axes[1] == 0 else (6,), "complex128", "v")
    result = quickly_compiled(jax.vmap(functools.partial(jaxconv.numpy.correlate, mode="same"), axes))(a, v)
    rows = [np.correlate(np.broadcast_to(a, (3, 4))[i], np.broadcast_to(v, (3, 6))[i], "same") for i in range(3)]
    np.testing.assert_allclose(result, rows, rtol=1e-12, atol=1e-12)


@pytest.mark.x32
def test_32_bits():
    result = jaxconv.numpy.convolve([1.0, 2.0], jnp.arange(3))
    assert result.dtype == "float32"
    np.testing.assert_array_equal(result, [0, 1, 4, 4])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_exported_with_symbolic_lengths(name, mode):
    """One program for every pair of lengths: of the first, of the second, of both; either may be the longer one."""
    call = jax.jit(functools.partial(getattr(jaxconv.numpy, name), mode=mode))
    for lengths in (("n", 4), (4, "m"), ("n", "m")):
        shapes = jax.export.symbolic_args_specs(
            [jax.ShapeDtypeStruct((length if isinstance(length, int) else 1,), np.float32) for length in lengths],
            [str(length) for length in lengths],
        )
        exported = jax.export.export(call)(*shapes)
        for numbers in ((1, 4), (3, 4), (4, 4), (5, 4), (9, 4), (4, 7), (4, 3)):
            if any(isinstance(length, int) and length != n for length, n in zip(lengths, numbers, strict=True)):
                continue
            a, v = (random((n,), "float32", key) for n, key in zip(numbers, "av", strict=True))
            expected = getattr(np, name)(a, v, mode)
            result = exported.call(a, v)
            assert result.shape == expected.shape
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
