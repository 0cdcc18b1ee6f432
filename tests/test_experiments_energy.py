"""The energy distance between groups of units, by its definition and by simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats

from experiments import energy


def by_definition(first, second):
    """Average |x - y| over pairs of vectors of different units, in plain loops."""

    def mean(pairs):
        return np.mean([np.linalg.norm(x - y) for one, other in pairs for x in one for y in other])

    return (
        2 * mean(itertools.product(first, second))
        - mean(itertools.permutations(first, 2))
        - mean(itertools.permutations(second, 2))
    )


@pytest.fixture(scope="module")
def groups():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 2, 4)), 0.5 + rng.standard_normal((4, 2, 4))


def test_energy_by_its_definition(groups):
    distances = energy.mean_distances(np.concatenate(groups))
    found = energy.energy(distances, energy.grouping(3, 4)[None])
    np.testing.assert_allclose(found, by_definition(*groups), rtol=1e-12)


def test_length_is_scipys_energy_distance(groups):
    """Of single numbers, with every pair in it, the distance in Hilbert space is SciPy's."""
    first, second = (group[:, 0, 0] for group in groups)
    distances = energy.mean_distances(np.concatenate([first, second])[:, None, None])
    weights = np.repeat([1 / 3, -1 / 4], [3, 4])[None]
    expected = scipy.stats.energy_distance(first, second)
    np.testing.assert_allclose(energy._length(weights, distances)[0], expected, rtol=1e-10)


def test_all_divisions_of_few_units(groups):
    """With many permutations the p value is the share of all divisions of seven units into three and four."""
    units = np.concatenate(groups)
    observed, permuted, p_value = energy.permutation_test(
        energy.mean_distances(units), 3, 9_999, np.random.default_rng(1)
    )
    divisions = [
        by_definition(units[list(chosen)], np.delete(units, chosen, axis=0))
        for chosen in itertools.combinations(range(7), 3)
    ]
    assert observed == pytest.approx(divisions[0])
    assert len(np.unique(permuted.round(9))) == len(divisions) == 35
    share = np.mean(np.array(divisions) >= observed - 1e-9)
    assert abs(p_value - share) < 5 * np.sqrt(share * (1 - share) / 9_999)


def test_units_are_what_is_permuted():
    """Vectors of a unit that are nearly equal are no more evidence than one: the test still errs at its level."""
    rng = np.random.default_rng(2)
    p_values = []
    for _ in range(300):
        units = rng.standard_normal((16, 1, 2)) + 0.01 * rng.standard_normal((16, 5, 2))
        p_values.append(energy.permutation_test(energy.mean_distances(units), 8, 199, rng)[2])
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    units[:8] += 3
    assert energy.permutation_test(energy.mean_distances(units), 8, 199, rng)[2] == 1 / 200


def test_split_halves_use_one_group_only(groups):
    units = np.concatenate(groups)[:5]  # of five, one is left out
    found = energy.split_halves(energy.mean_distances(units), 800, np.random.default_rng(3))
    expected = {
        round(by_definition(units[list(one)], units[list(other)]), 9)
        for one in itertools.combinations(range(5), 2)
        for other in itertools.combinations([index for index in range(5) if index not in one], 2)
    }
    assert set(found.round(9)) == expected


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_intervals_of_the_coefficient_cover(shift):
    """Of normal laws with a known distance: E|X - Y| is that of a folded normal law."""
    rng = np.random.default_rng(4)

    def mean(delta):  # E|N(delta, 2)|
        spread = np.sqrt(2)
        return spread * np.sqrt(2 / np.pi) * np.exp(-(delta**2) / 4) + delta * (
            1 - 2 * scipy.stats.norm.cdf(-delta / spread)
        )

    truth = np.sqrt((2 * mean(shift) - 2 * mean(0)) / (2 * mean(shift)))
    covered = []
    for _ in range(150):
        units = rng.standard_normal((60, 1, 1))
        units[30:] += shift
        interval = energy.coefficient(energy.mean_distances(units), 30, 0.05, 200, rng)
        assert interval.low <= interval.estimate <= interval.high
        covered.append(interval.low <= truth * 1.02 and truth * 0.98 <= interval.high)
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 150)


def test_refusals():
    with pytest.raises(ValueError, match=r"shape \(2, 3\); needed is \[units, vectors, dimensions\]"):
        energy.mean_distances(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="not finite"):
        energy.mean_distances(np.full((2, 1, 1), np.nan))
    with pytest.raises(ValueError, match="groups of 1 and 2 units; each needs two or more"):
        energy.energy(np.zeros((3, 3)), energy.grouping(1, 2)[None])
