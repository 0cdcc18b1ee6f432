"""The experiment on restoring photographs, tiny, and its ingredients against SciPy and plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from experiments import data, deblur, report, runner
from experiments import deblur_methods as methods
from experiments.core import Context
from experiments.kernels import asymmetry, flip
from experiments.training import stack

QUIET = Context(quick=True, show_progress=False)
OPERATIONS = {"convolution": scipy.signal.convolve, "correlation": scipy.signal.correlate}


def test_comet_is_a_blur_whose_flip_is_no_shift():
    blur = methods.comet()
    assert blur.min() >= 0
    assert blur.sum() == pytest.approx(1)
    rows, columns = np.mgrid[:9, :9] - 4
    assert np.hypot((blur * rows).sum(), (blur * columns).sum()) < 0.2
    shifts = [scipy.ndimage.shift(flip(blur), (row, column)) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    assert min(np.linalg.norm(blur - each) for each in shifts) > 0.5 * np.linalg.norm(blur)
    assert asymmetry((blur + flip(blur)) / 2) < 1e-15


def test_pictures_are_blurred_with_their_surroundings(monkeypatch):
    rng, blur = np.random.default_rng(0), methods.comet()
    monkeypatch.setattr(methods, "NOISE", 0.0)
    exact = methods.take(("coins", "moon"), 20, blur, rng)
    monkeypatch.setattr(methods, "NOISE", 0.1)
    noisy = methods.take(("coins", "moon"), 20, blur, rng)
    for index, name in enumerate(("coins", "moon")):
        expected = scipy.ndimage.convolve(data.photograph(name, 60), blur)[20:-20, 20:-20]
        np.testing.assert_allclose(exact.seen[index], expected, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(exact.sharp[index], data.photograph(name, 20))
    assert (noisy.seen - exact.seen).std() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_array_equal(noisy.inner(8).seen, noisy.seen[:, 6:14, 6:14])


def test_least_squares_finds_the_filter_that_made_the_pictures():
    rng = np.random.default_rng(0)
    seen, true = rng.random((2, 40, 40)), rng.standard_normal((11, 11))
    sharp = np.stack([scipy.signal.correlate(each - 0.5, true, mode="same") + 0.5 for each in seen])
    found = methods.least_squares(methods.Pictures(sharp, seen))
    np.testing.assert_allclose(found.filter, true, rtol=0, atol=1e-10)
    np.testing.assert_allclose(methods.apply(found, seen), sharp[:, 16:-16, 16:-16], rtol=0, atol=1e-10)
    assert 0 < found.lowest < 1 / 12 < found.highest  # 1/12 is the variance of each pixel


@pytest.mark.parametrize("convention", methods.CONVENTIONS)
def test_wiener_filter_is_one_linear_layer(convention):
    rng = np.random.default_rng(1)
    kernel, seen = rng.standard_normal((11, 11)), rng.random((2, 16, 18))
    found = methods.WIENER.restore(convention)({"kernel": jnp.asarray(kernel)[..., None, None]}, jnp.asarray(seen))
    expected = [OPERATIONS[convention](each - 0.5, kernel, mode="same") + 0.5 for each in seen]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("convention", methods.CONVENTIONS)
def test_richardson_lucy_against_its_formula(convention):
    """One operation blurs, the other spreads the corrections back."""
    blur, spread = OPERATIONS[convention], OPERATIONS[methods.CONVENTIONS[convention == "convolution"]]
    rng = np.random.default_rng(2)
    seen, powers = rng.random((16, 18)), np.array([1.0, 0.7])
    kernel = np.exp(rng.standard_normal((9, 9)))
    kernel /= kernel.sum()
    estimate, weight = seen, spread(np.ones_like(seen), kernel, mode="same")
    for power in powers:
        ratio = seen / blur(estimate, kernel, mode="same")
        estimate = estimate * (spread(ratio, kernel, mode="same") / weight) ** power
    params = {"logits": jnp.log(kernel)[..., None, None], "power": jnp.asarray(powers)}
    found = methods.RICHARDSON_LUCY.restore(convention)(params, jnp.asarray(seen)[None])
    np.testing.assert_allclose(found[0], estimate, rtol=1e-10)
    assert methods.adjoint_error(kernel, convention) < 1e-12


def test_adjoint_error_notices_the_wrong_convention(monkeypatch):
    layer = methods._layer
    monkeypatch.setattr(methods, "_layer", lambda side, convention: layer(side, "correlation"))
    assert methods.adjoint_error(methods.comet(), "correlation") < 1e-12
    assert methods.adjoint_error(methods.comet(), "convolution") > 1e-3


def test_network_starts_from_what_was_seen_and_flips_like_the_others():
    params = methods.UNET.start(np.random.default_rng(3))
    seen = jnp.asarray(np.random.default_rng(4).random((1, 12, 12)))
    restore, other = (methods.UNET.restore(convention) for convention in methods.CONVENTIONS)
    np.testing.assert_array_equal(restore(params, seen), seen)
    params["head"]["kernel"] += 0.1
    flipped = jax.tree.map(lambda leaf: leaf[0], methods.flip_kernels(stack([params])))
    expected = restore(params, seen)
    np.testing.assert_allclose(other(flipped, seen), expected, rtol=0, atol=1e-12)
    assert np.abs(other(params, seen) - expected).max() > 1e-2


def test_places_of_tiles_lie_within_the_pictures():
    pictures = methods.Pictures(np.zeros((3, 40, 40)), np.zeros((3, 40, 40)))
    places = methods.draw_places(methods.UNET, pictures, 50, 4, np.random.default_rng(0))
    assert places.shape == (50, 4, methods.BATCH, 3)
    np.testing.assert_array_equal(places.min((0, 1, 2)), 0)
    np.testing.assert_array_equal(places.max((0, 1, 2)), [2, 40 - methods.UNET.tile, 40 - methods.UNET.tile])


def test_pairs_are_the_units():
    """Photographs of one pair are averaged, not counted: five copies of a picture do not narrow the interval."""
    differences = np.random.default_rng(0).standard_normal((6, 1))
    assert deblur.compare(np.repeat(differences, 5, 1)) == pytest.approx(deblur.compare(differences))
    with pytest.raises(ValueError, match="two units or more"):
        deblur.compare(differences[:1])


@pytest.mark.x32
def test_deblur(tmp_path, monkeypatch):
    monkeypatch.setattr(deblur, "TRAINING", ("coffee", "gravel"))
    monkeypatch.setattr(deblur, "TEST", ("astronaut", "coins"))
    monkeypatch.setattr(deblur, "SCORED", 64)
    monkeypatch.setattr(methods, "FILTERED", 48)
    monkeypatch.setattr(methods, "ITERATIONS", 2)
    monkeypatch.setattr(deblur, "QUICK", deblur.Size(pairs=2, steps={methods.RICHARDSON_LUCY: 20}))
    studied = []
    study = deblur.study
    monkeypatch.setattr(deblur, "study", lambda *args: studied.append(study(*args)) or studied[-1])
    result = deblur.run(QUIET)
    # Twenty steps are too few for Richardson-Lucy, and two small pictures have correlations that are not symmetric.
    tiny = {"richardson-lucy-equivalent", "lucy-flipped-pairs", "lucy-finds-the-blur", "restores", "unflipped-fails"}
    tiny |= {"wiener-symmetric", "symmetric-unflipped"}
    assert {claim.name for claim in result.claims if not claim.holds} <= tiny
    assert {claim.control for claim in result.claims} == {False, True}
    entry = runner._record(runner.EXPERIMENTS["deblur"], result, 0.0, tmp_path)
    results = {"environment": runner.describe(QUIET), "planned": ["deblur"], "stopped": None, "experiments": [entry]}
    assert "What was learned" in report.page(results, tmp_path)

    # Had correlation convolved, it would have learned the filters of convolution.
    (found,) = studied
    same = {
        name: each | {"correlation": jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), each["convolution"])}
        for name, each in found.learned.items()
    }
    failed = {claim.name for claim in deblur.judge(found._replace(learned=same)) if not claim.holds}
    assert {"wiener-flipped-pairs", "wiener-closed-form", "wiener-unflipped"} <= failed
