"""The statistics of the experiments, against SciPy's tests and by simulation."""

import numpy as np
import pytest
import scipy.stats

from experiments.statistics import Interval, paired


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
