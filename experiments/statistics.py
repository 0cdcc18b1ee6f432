"""Statistics of the experiments: tests of equivalence, intervals of shares and means."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy.stats


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def farthest(self) -> float:
        """The largest magnitude in the interval: below a margin, the estimate is equivalent to 0 within that margin."""
        return max(abs(self.low), abs(self.high))

    @property
    def nearest(self) -> float:
        """The smallest magnitude in the interval; 0 if it contains 0."""
        return max(self.low, -self.high, 0.0)


def paired(differences: np.ndarray, level: float = 0.05) -> Interval:
    """Return the mean of paired differences with the interval of two one-sided tests at `level`.

    Equivalence within a margin is shown by rejecting, each at `level`, that the true mean is at most minus the margin
    and that it is at least the margin. Both t tests reject exactly if the interval with confidence 1 - 2 `level` lies
    within the margins (D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power approach",
    Journal of Pharmacokinetics and Biopharmaceutics 15, 1987).

    Parameters
    ----------
    differences
        One for each independent unit, such as a pair of trainings: average within the units beforehand. At least two.
    level
        Significance level of each of the two tests.
    """
    differences = np.asarray(differences, float)
    if differences.ndim != 1 or differences.size < 2:
        raise ValueError(
            f"differences have shape {differences.shape}; one number is needed for each of two units or more"
        )
    if not np.isfinite(differences).all():
        raise ValueError("differences that are not finite have no mean to speak of")
    mean, error = differences.mean(), differences.std(ddof=1) / np.sqrt(differences.size)
    reach = error * scipy.stats.t.ppf(1 - level, differences.size - 1)
    return Interval(float(mean), float(mean - reach), float(mean + reach))


def share(hits: np.ndarray, level: float = 0.05, method: Literal["wilson", "exact"] = "wilson") -> Interval:
    """Return the share of yes in a row of yes and no, with an interval of confidence 1 - `level`.

    That of E. B. Wilson ("Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22, 1927) errs with about that probability; the exact one (C. J. Clopper and E. S.
    Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26, 1934)
    with no more, and is wider. Of an empty row nothing is known: the interval is all of [0, 1].
    """
    hits = np.asarray(hits, bool)
    if not hits.size:
        return Interval(0.0, 0.0, 1.0)
    bounds = scipy.stats.binomtest(int(hits.sum()), hits.size).proportion_ci(1 - level, method=method)
    return Interval(float(hits.mean()), float(bounds.low), float(bounds.high))


def bootstrap(values: np.ndarray, rng: np.random.Generator, level: float = 0.05, draws: int = 1000) -> Interval:
    """Return the mean of independent values with its percentile interval of confidence 1 - `level`.

    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    values = np.asarray(values, float)
    means = values[rng.integers(values.size, size=(draws, values.size))].mean(-1)
    low, high = np.quantile(means, [level / 2, 1 - level / 2])
    return Interval(float(values.mean()), float(low), float(high))


def unpaired(first: np.ndarray, second: np.ndarray, level: float = 0.05) -> Interval:
    """Return the difference of two means, first less second, with the interval of two one-sided tests at `level`.

    As `paired`, for independent units, by Welch's t tests, which do not take the two variances for equal (B. L. Welch,
    "The generalization of 'Student's' problem when several different population variances are involved", Biometrika 34,
    1947).

    Parameters
    ----------
    first, second
        One number for each independent unit, such as a training; at least two units each.
    level
        Significance level of each of the two tests.
    """
    samples = [np.asarray(sample, float) for sample in (first, second)]
    if any(sample.ndim != 1 or sample.size < 2 for sample in samples):
        shapes = " and ".join(str(sample.shape) for sample in samples)
        raise ValueError(f"samples have shapes {shapes}; each needs one number for each of two units or more")
    if not all(np.isfinite(sample).all() for sample in samples):
        raise ValueError("samples that are not finite have no means to speak of")
    result = scipy.stats.ttest_ind(*samples, equal_var=False)
    ends = result.confidence_interval(1 - 2 * level)
    return Interval(float(samples[0].mean() - samples[1].mean()), float(ends.low), float(ends.high))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p values adjusted for their number, of the same shape.

    Rejecting those at most a level errs in any true hypothesis with at most that probability, however the tests depend
    on each other (S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979): the k-th smallest of m is multiplied by m - k + 1, and never falls below those before it.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, axis=None)
    adjusted = np.empty(values.size)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values.ravel()[order] * np.arange(values.size, 0, -1)))
    return adjusted.reshape(values.shape)
