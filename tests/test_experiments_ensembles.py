"""Independent networks, tiny."""

import numpy as np
import pytest

from experiments import data, ensembles, report, runner
from experiments import ensembles_networks as networks
from experiments.core import Context
from experiments.ensembles_networks import ASYMMETRIC, NATURAL, SYMMETRIC

QUIET = Context(quick=True, show_progress=False)


def test_textures_are_of_their_classes_and_do_not_overlap():
    found = data.textures(np.random.default_rng(0), train=40, test=20)
    assert found.images.shape == (120, 12, 12, 1)
    assert found.test_images.shape == (60, 12, 12, 1)
    np.testing.assert_allclose(found.images.mean((1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(found.images.std((1, 2)), 1)
    photo = data.photograph("grass", 512).reshape(256, 2, 256, 2).mean((1, 3))
    windows = np.lib.stride_tricks.sliding_window_view(photo, (12, 12))
    scaled = (windows - windows.mean((-2, -1), keepdims=True)) / windows.std((-2, -1), keepdims=True)
    for patch, low, high in ((found.images[40], 0, 154 - 12), (found.test_images[20], 154, 256 - 12)):
        rows = np.argwhere((np.abs(scaled - patch[..., 0]) < 1e-9).all((-2, -1)))[:, 0]
        assert len(rows)
        assert low <= rows.min()
        assert rows.max() <= high


@pytest.mark.parametrize("make", [networks.digits, networks.textures])
def test_conditions_are_what_they_are_called(make):
    task = make(np.random.default_rng(0))
    symmetric = task.images[SYMMETRIC]
    half = len(symmetric) // 2
    np.testing.assert_array_equal(symmetric[:half], task.images[NATURAL])
    np.testing.assert_array_equal(symmetric[half:], task.images[NATURAL][:, ::-1, ::-1])
    np.testing.assert_array_equal(task.labels[SYMMETRIC], np.tile(task.labels[NATURAL], 2))
    assert np.abs(task.images[ASYMMETRIC] - task.images[NATURAL]).max() > 0.5
    for given, other in zip(task.test_images[SYMMETRIC][:50], task.test_images[NATURAL], strict=False):
        assert (given == other).all() or (given == other[::-1, ::-1]).all()


def test_asymmetries_by_hand():
    image = np.zeros((1, 3, 4, 1))
    image[0, 0, 1] = 1
    expected = np.zeros((3, 4))
    expected[0, 1], expected[1, 2] = 1, -0.2
    np.testing.assert_allclose(networks.emboss(image)[0, ..., 0], expected)
    images = np.zeros((2, 5, 5, 1))
    marked = networks.stamp(images, np.array([False, True]), np.random.default_rng(0))
    assert not images.any()
    assert not marked[0].any()
    top, left = np.argwhere(marked[1, ..., 0])[0]
    np.testing.assert_array_equal(marked[1, top : top + 3, left : left + 3, 0], networks.MARK)


def test_every_network_sees_its_own_condition_in_its_own_order():
    task = networks.digits(np.random.default_rng(0))
    batches = networks._batches(task, 2, np.random.default_rng(1))
    assert batches.shape == (networks.STEPS, 6, 2, networks.BATCH)
    count = len(task.labels[NATURAL])
    for condition, (low, high) in enumerate(((0, count), (count, 2 * count), (2 * count, 4 * count))):
        mine = batches[:, 2 * condition : 2 * condition + 2]
        assert low <= mine.min() < low + count / 100
        assert high - count / 100 < mine.max() < high
    assert len(np.unique(batches[0].reshape(12, -1), axis=0)) == 12


def test_filters_keep_their_places():
    """The number of a run tells its condition; each value, where it stands in the kernel."""
    kernels = np.arange(2 * 6 * 3 * 3 * 8).reshape(2, 6, 3, 3, 1, 8)
    params = {
        name: {"convs": {0: {"kernel": kernel}}} for name, kernel in zip(networks.CONVENTIONS, kernels, strict=True)
    }
    found = networks._filters(params)
    assert found.shape == (3, 2, 2, 8, 3, 3)
    for place in ((0, 0, 0, 0, 0, 0), (2, 1, 0, 7, 1, 2), (1, 0, 1, 3, 2, 0)):
        condition, convention, index, number, row, column = place
        assert found[place] == kernels[convention, 2 * condition + index, row, column, 0, number]


@pytest.mark.x32
def test_ensembles(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "STEPS", 40)
    study = ensembles.study
    monkeypatch.setattr(
        ensembles, "study", lambda context, names, runs, permutations, tick: study(context, names, 6, 999, tick)
    )
    result = ensembles.run(QUIET)
    # Six networks, trained for so short a time, cannot tell much; the flipped ones must not be told apart.
    weak = {"accuracy", "equivalent-accuracy", "asymmetric-data", "asymmetric-distance", "filters-are-learned"}
    assert {claim.name for claim in result.claims if not claim.holds} <= weak
    assert {claim.control for claim in result.claims} == {False, True}
    entry = runner._record(runner.EXPERIMENTS["ensembles"], result, 0.0, tmp_path)
    results = {"environment": runner.describe(QUIET), "planned": ["ensembles"], "stopped": None, "experiments": [entry]}
    assert "One network of each convention" in report.page(results, tmp_path)
