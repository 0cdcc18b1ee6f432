"""The statistics of the experiments, against SciPy's tests and by simulation."""

import numpy as np
import pytest
import scipy.stats

from experiments.statistics import Interval, bootstrap, holm, paired, share, unpaired


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.2])
def test_paired_interval_is_that_of_two_one_sided_tests(shift):
    """Whatever the margin: the interval lies within it if and only if both of SciPy's t tests reject."""
    differences = shift + np.random.default_rng(0).standard_normal(12)
    found = paired(differences)
    assert found.estimate == pytest.approx(differences.mean())
    decisions = set()
    for margin in np.linspace(0.05, 2, 40):
        below = scipy.stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        above = scipy.stats.ttest_1samp(differences, margin, alternative="less").pvalue
        assert (found.farthest < margin) == (max(below, above) < 0.05)
        decisions.add(found.farthest < margin)
    assert decisions == {True, False}


def test_paired_rejects_at_its_level():
    """At the edge of the margin, where equivalence is false, it is declared in one sample out of twenty."""
    samples = 0.5 + 0.2 * np.random.default_rng(1).standard_normal((4000, 8))
    declared = np.mean([paired(sample).farthest < 0.5 for sample in samples])
    assert abs(declared - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)


def test_ends_of_intervals():
    assert Interval(0.1, -0.2, 0.4).farthest == Interval(-0.1, -0.4, 0.2).farthest == 0.4
    assert Interval(0.1, -0.2, 0.4).nearest == 0
    assert Interval(0.3, 0.2, 0.4).nearest == Interval(-0.3, -0.4, -0.2).nearest == 0.2


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ([0.1], r"shape \(1,\); one number is needed for each of two units or more"),
        ([[0.1, 0.2]], r"shape \(1, 2\)"),
        ([0.1, np.nan], "not finite"),
    ],
)
def test_paired_refuses(differences, message):
    with pytest.raises(ValueError, match=message):
        paired(differences)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.2])
def test_unpaired_interval_is_that_of_two_one_sided_tests(shift):
    rng = np.random.default_rng(2)
    first, second = shift + rng.standard_normal(12), 0.3 * rng.standard_normal(9)
    found = unpaired(first, second, level=0.01)
    assert found.estimate == pytest.approx(first.mean() - second.mean())
    decisions = set()
    for margin in np.linspace(0.05, 3, 40):
        below = scipy.stats.ttest_ind(first + margin, second, equal_var=False, alternative="greater").pvalue
        above = scipy.stats.ttest_ind(first - margin, second, equal_var=False, alternative="less").pvalue
        assert (found.farthest < margin) == (max(below, above) < 0.01)
        decisions.add(found.farthest < margin)
    assert decisions == {True, False}


def test_unpaired_takes_units_for_independent():
    """Pairing would help here, and must not be made use of."""
    first = np.random.default_rng(3).standard_normal(20)
    assert paired(first - first).farthest == 0
    assert unpaired(first, first).farthest > 0.3


@pytest.mark.parametrize(
    ("second", "message"),
    [([0.1], r"shapes \(2,\) and \(1,\); each needs"), ([0.1, np.inf], "not finite")],
)
def test_unpaired_refuses(second, message):
    with pytest.raises(ValueError, match=message):
        unpaired([0.1, 0.2], second)


def test_exact_intervals_cover():
    """They hold the truth in at least 95% of samples, and are no wider than they should be."""
    rng = np.random.default_rng(0)
    found = [share(rng.random(60) < 0.8, method="exact") for _ in range(200)]
    assert np.mean([each.low <= 0.8 <= each.high for each in found]) > 0.92
    assert max(each.high - each.low for each in found) < 0.3
    # Of ten times yes, by hand: the probability p for which p^10 is half the level.
    assert share(np.ones(10, bool), method="exact") == pytest.approx((1.0, 0.025**0.1, 1.0))


def test_bootstrap_of_a_mean():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(400)
    found = bootstrap(values, rng)
    assert found.estimate == values.mean()
    assert found.low < found.estimate < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.25)


def test_holm_by_hand():
    """0.01 by 4, 0.02 by 3, 0.03 by 2 and 0.5 by 1; the third may not fall below the second."""
    np.testing.assert_allclose(holm(np.array([[0.03, 0.01], [0.5, 0.02]])), [[0.06, 0.04], [0.5, 0.06]])
    np.testing.assert_allclose(holm(np.array([0.02, 0.021, 0.9])), [0.06, 0.06, 0.9])
    np.testing.assert_allclose(holm(np.array([0.7, 0.8])), [1, 1])
