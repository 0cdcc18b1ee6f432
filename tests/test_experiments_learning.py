"""The experiments that search and learn, tiny."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from experiments import data, matching, matching_lesson, matching_trials, report, runner
from experiments.core import Context
from experiments.kernels import flip

QUIET = Context(quick=True, show_progress=False)


@pytest.fixture(scope="module")
def trials():
    return matching.draw_trials(np.random.default_rng(0), 6)


def test_trials_are_cut_from_photographs(trials):
    names = list(data.PHOTOGRAPHS)
    for source, scene, probe, place in zip(*trials, strict=True):
        np.testing.assert_array_equal(matching.window(scene, place), probe)
        assert probe.std() >= matching_trials.CONTRAST
        square = data.photograph(names[source], matching_trials.SQUARE)
        rows = np.lib.stride_tricks.sliding_window_view(square, (matching_trials.SCENE, matching_trials.SCENE))
        assert (rows[:, :, 0] == scene[0]).all(-1).any()


def test_maps_against_their_definitions(trials):
    """Each map against a loop over windows, in float64; NumPy's corrcoef is the normalised one."""
    scene, probe = trials.scenes[0][:40, :40], trials.probes[0]
    found, brightness = matching.maps(jnp.asarray(scene), jnp.asarray(probe))
    windows = np.lib.stride_tricks.sliding_window_view(scene, probe.shape)
    contrast = windows.std((-2, -1))
    assert contrast.min() < matching.FLOOR < contrast.max()
    np.testing.assert_allclose(brightness, windows.mean((-2, -1)), atol=1e-12)
    np.testing.assert_allclose(found[matching.PLAIN], (windows * probe).sum((-2, -1)), rtol=1e-10)
    np.testing.assert_allclose(found[matching.CENTRED], (windows * (probe - probe.mean())).sum((-2, -1)), atol=1e-9)
    for index, template in ((matching.NORMALISED, probe), (matching.CONVOLVED, flip(probe))):
        expected = [[np.corrcoef(w.ravel(), template.ravel())[0, 1] for w in row] for row in windows]
        damped = np.array(expected) * np.minimum(1, contrast / matching.FLOOR)
        np.testing.assert_allclose(found[index], damped, atol=1e-9)


def test_disturbances_spare_the_probe_or_change_it_as_they_say(trials):
    rng = np.random.default_rng(1)
    for name in matching.DISTURBED:
        scenes = matching.disturb(name, trials, rng)
        changed = np.abs(scenes - trials.scenes).max((-2, -1))
        assert (changed > 0.01).all()
        for scene, probe, place in zip(scenes, trials.probes, trials.places, strict=True):
            piece = matching.window(scene, place)
            if name in ("white squares", "glaring decoys"):
                np.testing.assert_array_equal(piece, probe)
            else:
                assert np.abs(piece - probe).max() > 0.01
    scenes, places = matching.add_turned(trials, rng)
    for scene, probe, place, turned in zip(scenes, trials.probes, trials.places, places, strict=True):
        np.testing.assert_array_equal(matching.window(scene, place), probe)
        np.testing.assert_array_equal(matching.window(scene, turned), flip(probe))


def test_found_means_within_one_pixel_on_either_axis():
    places = np.array([[[5, 5], [6, 4], [7, 5], [5, 3]]])
    result = matching.Search(places, np.zeros((1, 4)), np.zeros((1, 4)))
    np.testing.assert_array_equal(result.found(np.full((4, 2), 5)), [[True, True, False, False]])


@pytest.mark.x32
def test_matching(tmp_path, monkeypatch):
    monkeypatch.setattr(matching_lesson, "STEPS", 20)
    draw, learn = matching.draw_trials, matching_lesson.learn
    monkeypatch.setattr(matching, "draw_trials", lambda rng, count: draw(rng, 12))
    monkeypatch.setattr(matching_lesson, "learn", lambda rng, count, dtype: learn(rng, 2, dtype))
    result = matching.run(QUIET)
    # Twelve trials are too few for intervals as narrow as these claims need.
    wide = {"normalised-finds", "normalised-is-better", "chance", "convolution-unturned", "plain-is-drawn-to-light"}
    wide |= {"convolution-finds-the-turned", "correlation-finds-the-upright"}
    assert {claim.name for claim in result.claims if not claim.holds} <= wide
    assert {claim.control for claim in result.claims} == {False, True}
    again = matching.run(QUIET)
    assert [claim.measured for claim in again.claims] == [claim.measured for claim in result.claims]
    assert [panel.svg for figure in again.figures for panel in figure.panels] == [
        panel.svg for figure in result.figures for panel in figure.panels
    ]
    entry = runner._record(runner.EXPERIMENTS["matching"], result, 0.0, tmp_path)
    results = {"environment": runner.describe(QUIET), "planned": ["matching"], "stopped": None, "experiments": [entry]}
    assert "Convolution looks for the rotation" in report.page(results, tmp_path)


def test_against_scipy_notices_a_wrong_map(trials, monkeypatch):
    assert matching.against_scipy(trials, np.float32, 1) < 1e-5
    monkeypatch.setattr(scipy.signal, "correlate", scipy.signal.convolve)
    assert matching.against_scipy(trials, np.float32, 1) > 1e-2
