"""Extensions beyond the ends of an array, against NumPy and SciPy."""

from __future__ import annotations

import functools

import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.ndimage
from jax import numpy as jnp

from jaxconv._boundary import BOUNDARIES, SYNONYMS, check_boundary, extend

NUMPY_MODES = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "wrap": "wrap"}
# Short and long axes; extensions shorter than the axis, longer, and so long that they are gathered.
LENGTHS_AND_WIDTHS = [(5, (2, 3)), (5, (5, 0)), (3, (8, 7)), (2, (1, 25)), (1, (2, 1)), (4, (0, 0))]


def test_every_boundary_is_compared() -> None:
    assert set(NUMPY_MODES) == set(BOUNDARIES)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("length", "widths"), LENGTHS_AND_WIDTHS, ids=str)
def test_extend_matches_numpy(length: int, widths: tuple[int, int], boundary: str) -> None:
    x = np.arange(1, 2 * length + 1).reshape(2, length)
    found = extend(jnp.asarray(x), [(0, 0), widths], boundary)
    np.testing.assert_array_equal(found, np.pad(x, [(0, 0), widths], NUMPY_MODES[boundary]))


@pytest.mark.parametrize("boundary", [*BOUNDARIES, *SYNONYMS])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_extend_matches_scipy(length: int, boundary: str) -> None:
    """A filter of SciPy is a filter of the extended array; the kernel is longer than the axis."""
    x, w = np.arange(length, dtype=float) + 1, np.cos(np.arange(7.0))
    expected = scipy.ndimage.correlate1d(x, w, mode=boundary, cval=0.5)
    found = np.correlate(extend(jnp.asarray(x), [(3, 3)], boundary, 0.5), w, "valid")
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_extend_takes_one_boundary_for_each_axis() -> None:
    x = np.arange(12.0).reshape(3, 4)
    found = extend(jnp.asarray(x), [(2, 1), (1, 6)], ["mirror", "constant"], cval=-1)
    expected = np.pad(np.pad(x, [(2, 1), (0, 0)], "reflect"), [(0, 0), (1, 6)], constant_values=-1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("length", "widths"), [(4, (2, 3)), (3, (11, 2)), (2, (1, 25))], ids=str)
def test_extend_is_differentiated_exactly(length: int, widths: tuple[int, int], boundary: str) -> None:
    """Forward and backward, by the matrix that the extension is."""
    function = functools.partial(extend, widths=[widths], boundary=boundary)
    x = jnp.arange(1.0, length + 1)
    matrix = np.stack([np.pad(row, [widths], NUMPY_MODES[boundary]) for row in np.eye(length)], axis=1)
    np.testing.assert_array_equal(jax.jvp(function, (x,), (x,))[1], matrix @ np.asarray(x))
    y, pullback = jax.vjp(function, x)
    cotangent = jnp.cos(jnp.arange(y.size))
    np.testing.assert_allclose(pullback(cotangent)[0], matrix.T @ np.asarray(cotangent), atol=1e-13)


def test_extend_is_differentiated_by_its_constant() -> None:
    x = jnp.ones((2, 3))
    gradient = jax.grad(lambda cval: jnp.sum(extend(x, [(1, 0), (0, 2)], "constant", cval)))(2.0)
    assert gradient == 3 * 5 - 2 * 3


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_extend_under_vmap_and_jit(boundary: str) -> None:
    x = jnp.arange(24.0).reshape(2, 3, 4)
    function = functools.partial(extend, widths=[(1, 2), (9, 0)], boundary=boundary, cval=3)
    expected = np.stack([function(row) for row in x])
    for axis in (0, 2):
        found = jax.jit(jax.vmap(function, in_axes=axis))(jnp.moveaxis(x, 0, axis))
        np.testing.assert_array_equal(found, expected)


def test_extend_under_vmap_over_the_constant() -> None:
    found = jax.vmap(lambda cval: extend(jnp.ones(2), [(1, 1)], "constant", cval))(jnp.array([2.0, 3.0]))
    np.testing.assert_array_equal(found, [[2, 1, 1, 2], [3, 1, 1, 3]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float16, ml_dtypes.bfloat16, np.float64, np.complex64])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_extend_keeps_the_dtype(dtype: type, boundary: str) -> None:
    x = jnp.arange(3).astype(dtype)
    found = extend(x, [(2, 4)], boundary, cval=1)
    options = {"constant_values": 1} if boundary == "constant" else {}
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.pad(np.asarray(x), [(2, 4)], NUMPY_MODES[boundary], **options))


def test_extend_of_an_empty_axis() -> None:
    x = jnp.zeros((0, 3))
    np.testing.assert_array_equal(extend(x, [(1, 1), (0, 0)], "constant", 2), np.full((2, 3), 2))
    assert extend(x, [(0, 0), (1, 1)], "wrap").shape == (0, 5)
    with pytest.raises(ValueError, match=r"axis 0 of shape \(0, 3\) is empty .*only 'constant' can extend it"):
        extend(x, [(1, 1), (0, 0)], "wrap")


@pytest.mark.parametrize(
    ("boundary", "error", "message"),
    [
        ("circle", ValueError, r"unknown boundary 'circle': choose one of 'constant', 'nearest'"),
        ("symmetric", ValueError, r"perhaps 'reflect'$"),
        ("edge", ValueError, r"perhaps 'nearest'$"),
        ("CIRCULAR", ValueError, r"unknown boundary 'CIRCULAR'"),
        ("REFLECT", ValueError, r"perhaps 'mirror'$"),
        ("Wrap", ValueError, r"perhaps 'wrap'$"),
        (3, TypeError, r"boundary must be a name, or a sequence of one name for each axis, got 3"),
        (["wrap", None], TypeError, r"boundary must be a name"),
        (["wrap"], ValueError, r"one for each of 2 axes: got 1 \(\('wrap',\)\)"),
    ],
)
def test_check_boundary_rejects(boundary: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_boundary(boundary, 2)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([(1, 1)], r"one pair \(before, after\) per axis: got 1 for shape \(2, 3\)"),
        ([(1, 1), (0, -1)], r"widths must not be negative, got \(\(1, 1\), \(0, -1\)\)"),
    ],
)
def test_extend_rejects_widths(widths: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extend(jnp.zeros((2, 3)), widths, "wrap")
