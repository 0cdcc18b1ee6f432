"""Fourier transforms in two steps: their spectra, that `fft` computes the same by them, and when it takes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxconv
from jaxconv._algorithms import REGISTRY, _long_rows
from jaxconv._algorithms._once import Call
from jaxconv._simplify import simplify

from .cases import CASES, operands, random
from .methods import can, problem

FFT = REGISTRY["fft"]


def able(case):
    """Whether `fft` computes it as it is: nothing is empty, cropped or dropped beforehand."""
    p = problem(case, "float64")
    return not p.empty and can("fft", case, "float64") and simplify(p)[0] == p


@pytest.mark.parametrize("length", [4, 12, 48, 4480, 2**12, 3 * 2**13])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_spectrum(length, dtype):
    x = random((2, length), dtype, "x")
    rows, columns = length // _long_rows.columns(length), _long_rows.columns(length)
    spectrum = _long_rows.transform(jnp.asarray(x))
    expected = np.fft.fft(x).reshape(2, columns, rows).swapaxes(1, 2)[:, : rows // 2 + 1]
    tolerance = 10 * float(np.finfo(dtype).eps) * np.abs(expected).max()
    np.testing.assert_allclose(spectrum, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(_long_rows.inverse(spectrum, length), x, rtol=0, atol=tolerance)


@pytest.mark.parametrize("convention", ["convolution", "correlation"])
@pytest.mark.parametrize("case", list(filter(able, CASES)), ids=str)
def test_two_steps_compute_the_same(case, convention, monkeypatch):
    p = problem(case, "float64", convention)
    x, w = map(jnp.asarray, operands(case, "float64"))
    once = FFT.run(p, x, w, Call("cpu"))
    monkeypatch.setattr(_long_rows, "LONG", 2)
    monkeypatch.setattr(_long_rows, "FEW", 10**6)
    np.testing.assert_allclose(FFT.run(p, x, w, Call("cpu")), once, rtol=1e-10, atol=1e-10)
    # Elsewhere it is one transform, of the same length.
    np.testing.assert_allclose(FFT.run(p, x, w, Call("cuda")), once, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("batch", "size", "dtype", "transforms"),
    [(1, 3000, "float32", 6), (2, 3000, "float64", 6), (1, 1300, "float32", 3), (3, 3000, "float32", 3)],
)
def test_when(batch, size, dtype, transforms):
    """Two transforms for each of three, of few long rows of real data."""
    x, w = random((batch, size), dtype, "x"), random((size // 2,), dtype, "w")
    convolve = jax.jit(jax.vmap(lambda x, w: jaxconv.signal.convolve(x, w, method="fft"), (0, None)))
    assert convolve.lower(x, w).compile().as_text().count("fft_type=") == transforms
    expected = np.stack([np.convolve(row.astype("float64"), w) for row in x])
    np.testing.assert_allclose(convolve(x, w), expected, rtol=0, atol=2e-3 if dtype == "float32" else 1e-10)


def test_gradients_share_their_spectra():
    x, w = random((4000,), "float64", "x"), random((500,), "float64", "w")
    loss = lambda x, w: jnp.sum(jnp.sin(jaxconv.signal.convolve(x, w, method="fft")))  # noqa: E731
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(x, w).compile()
    assert compiled.as_text().count("fft_type=") == 2 * 6
    _, (by_x, by_w) = compiled(x, w)
    ct = np.cos(np.convolve(x, w))
    np.testing.assert_allclose(by_x, np.correlate(ct, w, "valid"), rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_w, np.correlate(ct, x, "valid"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("op", ["convolve", "correlate"])
def test_sharded_rows(op):
    """XLA refuses transforms of what it has laid out otherwise than row by row, as it does where rows are sharded."""
    x, w = random((2, 3000), "float64", "x"), random((500,), "float64", "w")
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("i",)), PartitionSpec("i"))
    function = jax.jit(jax.vmap(lambda x, w: getattr(jaxconv.signal, op)(x, w, mode="same", method="fft"), (0, None)))
    expected = np.stack([getattr(np, op)(row, w, "same") for row in x])
    np.testing.assert_allclose(function(jax.device_put(x, sharding), w), expected, rtol=0, atol=1e-10)
