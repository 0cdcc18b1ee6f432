"""The experiment on the convolution theorem: a tiny run, and its ingredients against other sources."""

from __future__ import annotations

from fractions import Fraction

import jax
import numpy as np
import pytest
import scipy.signal

from experiments import fourier, report, runner
from experiments import fourier_learning as learning
from experiments import fourier_plans as plans
from experiments import fourier_precision as precision
from experiments import fourier_theorem as theorem
from experiments import fourier_timing as timing
from experiments.core import Context

QUIET = Context(quick=True, show_progress=False)
TIMED = {"planner-near-fastest", "choice-matters"}  # not to be judged while other tests run


@pytest.fixture
def tiny(monkeypatch):
    settings = {
        theorem: {"SHAPES": {1: (12, 5)}, "PHOTOGRAPHS": ()},
        precision: {"LENGTH": 3072, "LOUD": 256, "TAPS": 16, "FAR": 2048, "DTYPES": ("float32",)},
        timing: {"sweeps": lambda _: {"1-D": ((4096,), [3, 1025])}},
    }
    for module, values in settings.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


@pytest.mark.x32
@pytest.mark.usefixtures("tiny")
def test_fourier(tmp_path):
    result = fourier.run(QUIET)
    assert {claim.name for claim in result.claims if not claim.holds} <= TIMED
    assert {claim.control for claim in result.claims} == {False, True}
    entry = runner._record(runner.EXPERIMENTS["fourier"], result, 0.0, tmp_path)
    results = {"environment": runner.describe(QUIET), "planned": ["fourier"], "stopped": None, "experiments": [entry]}
    page = report.page(results, tmp_path)
    assert all(claim.statement.split(" (")[0] in page for claim in result.claims)
    assert all(panel.alt for figure in result.figures for panel in figure.panels)


# --- the theorem -----------------------------------------------------------------------------------------------------


def test_spectrum_is_the_transform():
    array = np.random.default_rng(0).standard_normal((4, 6)) + 1j
    first, second = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in array.shape), indexing="ij")
    frequencies = np.stack([first.ravel(), second.ravel()], 1)
    np.testing.assert_allclose(theorem.spectrum(array, frequencies), np.fft.fft2(array).ravel(), atol=1e-13)
    delayed = theorem.spectrum(array, frequencies, first=-2)
    np.testing.assert_allclose(delayed, np.fft.fft2(array).ravel() * np.exp(2j * frequencies.sum(1)), atol=1e-13)


def test_products_of_transforms():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((7, 7)), rng.standard_normal((3, 3))
    np.testing.assert_allclose(theorem.product(x, w, 9), scipy.signal.convolve(x, w), atol=1e-13)
    circular = scipy.signal.convolve2d(x, w, boundary="wrap")[:7, :7]
    np.testing.assert_allclose(theorem.product(x, w, 7), circular, atol=1e-13)


@pytest.mark.usefixtures("tiny")
def test_theorem_tells_the_conventions_apart(monkeypatch):
    """If the library's correlation convolved, the forms of the theorem that speak of it would fail, and no others."""
    monkeypatch.setattr(theorem.signal, "correlate", lambda x, w, **options: theorem.signal.convolve(x, w, **options))
    (case,) = (case for case in theorem.draw(QUIET, 1) if case.is_complex)
    found = theorem.laws(case, np.random.default_rng(0))
    right = {law for law, value in found.items() if value < 1e-12}
    assert right == {"convolution", "zeros appended", "the library’s FFT"}


# --- learning --------------------------------------------------------------------------------------------------------


def test_every_registered_algorithm_has_a_problem():
    pairs = learning.assign(learning.pose(Context()), quick=True)
    assert sorted(method for _, method in pairs) == sorted(plans.registered())
    assert {"xla", "shift", "fft", "overlap"} <= set(plans.registered())


@pytest.mark.parametrize(("taps", "dilation"), [((3,), 1), ((3, 2), 2)])
def test_targets_are_convolutions(taps, dilation):
    axes = len(taps)
    inputs = np.random.default_rng(0).standard_normal((2, 3, *(9,) * axes))
    problem = learning.problem(np.random.default_rng(1), inputs, taps, dilation)
    flipped = np.flip(problem.filters, tuple(range(2, 2 + axes)))
    options = {"window_strides": (1,) * axes, "padding": "VALID", "rhs_dilation": (dilation,) * axes}
    expected = jax.lax.conv_general_dilated(problem.inputs, flipped, **options)
    np.testing.assert_allclose(problem.targets, expected, atol=1e-12)
    # The largest curvature of each filter's loss is 1.
    patches = jax.lax.conv_general_dilated_patches(problem.inputs, taps, **options)
    rows = np.moveaxis(np.asarray(patches), 1, -1).reshape(-1, patches.shape[1])
    assert np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1] == pytest.approx(1)


def test_disagreement_names_the_pair():
    filters = np.zeros((2, 1, 1, 2))
    shown = {
        (name, method): learning.Lesson(filters + value, filters, np.zeros((2, 1)), ("", ""))
        for name, method, value in (("one", "a", 0), ("one", "b", 1), ("one", "c", 3), ("two", "a", 9))
    }
    gap, where = learning.disagreement(shown)
    assert gap == pytest.approx(np.sqrt(2) * 3)
    assert where == "Largest: a and c, one."


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_exact_results():
    exact = precision.compose(QUIET)
    for signal, results, magnitudes in zip(exact.signals, exact.results, exact.magnitudes, strict=True):
        for first in (0, 17, len(results) - 1):
            products = [Fraction(a) * Fraction(b) for a, b in zip(signal[first : first + 16], exact.taps, strict=True)]
            assert results[first] == float(sum(products))
            assert magnitudes[first] == pytest.approx(float(sum(map(abs, products))))


@pytest.mark.usefixtures("tiny")
def test_results_of_loud_and_quiet_samples():
    samples, results = precision.scales(10)
    windows = np.lib.stride_tricks.sliding_window_view(samples, precision.TAPS)
    np.testing.assert_array_equal(np.isnan(results), windows.min(-1) != windows.max(-1))
    known = ~np.isnan(results)
    np.testing.assert_array_equal(results[known], windows.max(-1)[known])


def test_slope():
    exponents = np.arange(0, 33, 2)
    errors = precision.Errors(exponents, *np.full((5, len(exponents), 1), 2.0), 1.0, True)
    grown = errors._replace(quiet=3e-8 * 2.0 ** (0.5 * exponents)[:, None])
    assert precision.slope(grown, "float32") == pytest.approx(0.5)


# --- time ------------------------------------------------------------------------------------------------------------


def test_timing_compares_with_the_fastest():
    times = timing.Timing(5, {"a": 3.0, "b": 1.0, "c": 4.0}, "a", 2.0, by_transform=False)
    assert (times.fastest, times.regret, times.spread) == ("b", 3, 4)
