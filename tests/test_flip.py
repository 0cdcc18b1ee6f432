"""`jaxconv.flip`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconv

from .cases import random


@pytest.mark.parametrize("axes", [None, 0, -1, (0, 2), [1], np.int64(1), np.array([0, -1]), (), []])
def test_reverses_as_numpy(axes):
    kernel = random((3, 4, 2), "float32", "kernel")
    expected = np.flip(kernel, tuple(axes) if isinstance(axes, (list, np.ndarray)) else axes)
    np.testing.assert_array_equal(jaxconv.flip(kernel, axes), expected)
    np.testing.assert_array_equal(jaxconv.flip(jaxconv.flip(kernel, axes), axes), kernel)


def test_array_likes_and_dtypes():
    np.testing.assert_array_equal(jaxconv.flip([[1, 2], [3, 4]]), [[4, 3], [2, 1]])
    assert jaxconv.flip(3).shape == ()
    for dtype in ("bfloat16", "complex64", "int8", "bool"):
        assert jaxconv.flip(jnp.zeros((2, 3), dtype)).dtype == jnp.dtype(dtype)
    assert jaxconv.flip(np.zeros((0, 3))).shape == (0, 3)


def test_under_transformations():
    """The flip is its own inverse and its own transpose."""
    kernel, weights = random((2, 3, 4), "float64", "kernel"), random((3, 4), "float64", "weights")
    batched = jax.jit(jax.vmap(jaxconv.flip))(kernel)
    np.testing.assert_array_equal(batched, kernel[:, ::-1, ::-1])
    gradient = jax.grad(lambda k: jnp.vdot(weights, jaxconv.flip(k)))(kernel[0])
    np.testing.assert_array_equal(gradient, weights[::-1, ::-1])


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        (2, ValueError, r"between -2 and 1, got \(2,\)"),
        ((0, -3), ValueError, r"between -2 and 1, got \(0, -3\)"),
        ((1, -1), ValueError, r"unique, got \(1, -1\)"),
        (1.0, TypeError, "integer or a sequence of integers, got 1.0"),
        ("ab", TypeError, "integer or a sequence of integers, got 'ab'"),
    ],
)
def test_errors(axes, error, message):
    for call in (jaxconv.flip, jax.jit(jaxconv.flip, static_argnums=1)):
        with pytest.raises(error, match=message):
            call(np.ones((2, 3)), axes)
