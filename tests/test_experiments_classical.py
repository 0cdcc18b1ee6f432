"""The experiments on what convolution and correlation are: tiny runs, and their ingredients against other sources."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from experiments import algebra, blur, data, frobenius, report, runner
from experiments.core import Context, Outcome
from experiments.kernels import asymmetry, flip

QUIET = Context(quick=True, show_progress=False)


def check(result: Outcome, name: str, tmp_path) -> None:
    """All claims hold, some are controls, and the outcome can be set as a page."""
    assert [(claim.name, claim.measured) for claim in result.claims if not claim.holds] == []
    assert {claim.control for claim in result.claims} == {False, True}
    entry = runner._record(runner.EXPERIMENTS[name], result, 0.0, tmp_path)
    results = {"environment": runner.describe(QUIET), "planned": [name], "stopped": None, "experiments": [entry]}
    page = report.page(results, tmp_path)
    assert all(claim.statement.split(" (")[0] in page for claim in result.claims)
    assert all(panel.alt for figure in result.figures for panel in figure.panels)


# --- algebra ---------------------------------------------------------------------------------------------------------


@pytest.mark.x32
def test_algebra(tmp_path, monkeypatch):
    small = {"SIDES": {1: 12}, "DTYPES": ("float64",), "PHOTOGRAPHS": (), "STARTS": 2, "STEPS": 100}
    for name, value in small.items():
        monkeypatch.setattr(algebra, name, value)
    check(algebra.run(QUIET), "algebra", tmp_path)


@pytest.mark.parametrize("name", algebra.OPERATIONS)
def test_laws(name):
    """SciPy breaks associativity by the same amount, and an operation breaks the laws of the other only."""
    op = {"convolution": scipy.signal.convolve, "correlation": scipy.signal.correlate}[name]
    case = algebra.case("complex", np.random.default_rng(0), "complex128", np.ones(9) + 1j * np.arange(9))
    found = algebra.laws(name, algebra.OPERATIONS[name], case)
    x, a, b = case.x, case.a, case.b
    nested = op(op(x, a), b)
    expected = np.linalg.norm(op(x, op(a, b)) - nested) / np.linalg.norm(nested)
    assert found["associative"] == pytest.approx(expected, abs=1e-14)
    broken = {law for law, value in found.items() if value > algebra.DIFFERENT}
    assert broken == {*(algebra.CONVOLUTION if name == "correlation" else algebra.CORRELATION), *algebra.NEVER}


def test_signals_of_algebra():
    cases = {case.name: case for case in algebra.draw(Context(), 1)}
    assert {each.x.shape for each in cases.values()} == {(48,), (16, 16), (8, 8, 8)}
    assert {str(each.y.dtype) for each in cases.values()} == {*algebra.DTYPES}
    assert cases["line of coins"].x.shape == (48,)
    assert cases["coins"].x.shape == (16, 16)


def test_sides_of_a_law_have_one_shape():
    with pytest.raises(ValueError, match=r"sides of a law have the shapes \(2,\) and \(3,\); they must agree"):
        algebra.residual(np.ones(2), np.ones(3))


# --- frobenius -------------------------------------------------------------------------------------------------------


@pytest.mark.x32
def test_frobenius(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PHOTOGRAPHS", {name: data.PHOTOGRAPHS[name] for name in ("coins", "gravel")})
    monkeypatch.setattr(frobenius, "CROP", 20)
    result = frobenius.run(QUIET)
    check(result, "frobenius", tmp_path)
    assert result.highlights[0][0] == f"{2 * 2 * 18 * 12**2:,}"


@pytest.mark.parametrize("way", frobenius.WAYS)
def test_ways_compute_correlation(way):
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal((7, 7)), rng.standard_normal((3, 3))
    expected = scipy.signal.correlate(image, kernel, mode="valid").ravel()
    np.testing.assert_allclose(frobenius.compute(way, image, kernel), expected, rtol=0, atol=1e-13)


def test_layer_matrix_by_hand():
    expected = [
        [1, 2, 0, 3, 4, 0, 0, 0, 0],
        [0, 1, 2, 0, 3, 4, 0, 0, 0],
        [0, 0, 0, 1, 2, 0, 3, 4, 0],
        [0, 0, 0, 0, 1, 2, 0, 3, 4],
    ]
    np.testing.assert_array_equal(frobenius.layer_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]), 3), expected)


def test_frobenius_tells_the_conventions_apart(monkeypatch):
    """If the library's correlation convolved, claims that rest on the orientation would fail."""
    monkeypatch.setitem(frobenius.OPERATIONS, "correlation", frobenius.signal.convolve)
    monkeypatch.setattr(frobenius, "CROP", 16)
    monkeypatch.setattr(data, "PHOTOGRAPHS", {"coins": data.PHOTOGRAPHS["coins"]})
    failed = {claim.name for claim in frobenius.run(QUIET).claims if not claim.holds}
    assert {"hadamard", "trace", "im2col", "toeplitz", "layer-matrix", "transpose", "gradient"} <= failed


# --- blur ------------------------------------------------------------------------------------------------------------


@pytest.mark.x32
def test_blur(tmp_path, monkeypatch):
    monkeypatch.setattr(blur, "SIDE", 96)
    check(blur.run(QUIET), "blur", tmp_path)


def test_kernels_of_blur():
    kernels = blur.kernels_of_this_experiment()
    assert [kernel.sum() for kernel in kernels.values()] == pytest.approx([1, 1])
    np.testing.assert_array_equal(kernels[blur.SYMMETRIC], flip(kernels[blur.SYMMETRIC]))
    np.testing.assert_allclose(273 * kernels[blur.SYMMETRIC][1], [4, 16, 26, 16, 4])
    assert asymmetry(kernels[blur.ASYMMETRIC]) > 1


def test_blurred_pictures():
    """Cut to what the kernel covers, the pictures are SciPy's, of an image whose margins differ."""
    face = np.random.default_rng(0).random((12, 15))
    kernels = blur.kernels_of_this_experiment()
    blurred = blur.blur(face, kernels)
    np.testing.assert_array_equal(blurred.face, face[2:-2, 2:-2])
    for (name, convention), picture in blurred.pictures.items():
        filters = {"convolution": scipy.ndimage.convolve, "correlation": scipy.ndimage.correlate}
        expected = filters[convention](face, kernels[name])[2:-2, 2:-2]
        np.testing.assert_allclose(picture, expected, rtol=0, atol=1e-14)


def test_slopes_of_a_ramp():
    """A ramp keeps its slope under any kernel of sum 1, a step does not."""
    rows, columns = np.mgrid[:20, :20]
    np.testing.assert_allclose(blur.slopes(3.0 * rows + 4.0 * columns), 5)
    kernels = blur.kernels_of_this_experiment()
    ramp, step = (blur.blur(image, kernels) for image in (1.0 * columns, np.where(columns < 10, 0.0, 1.0)))
    assert blur.mean_kept(ramp, blur.SYMMETRIC) == pytest.approx(1)
    # Columns of the kernel sum to 17, 66, 107, 66 and 17 of 273; the central difference of a step spans two of them.
    assert blur.mean_kept(step, blur.SYMMETRIC) == pytest.approx((107 + 66) / 273)
