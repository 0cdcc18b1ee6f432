"""Statistics that several experiments need: tests of equivalence, intervals of shares."""

from __future__ import annotations

from typing import NamedTuple

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


def share(hits: np.ndarray, level: float = 0.05) -> Interval:
    """Return the share of yes in a row of yes and no, with E. B. Wilson's interval of confidence 1 - `level`.

    "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
    Association 22, 1927. Of an empty row nothing is known: the interval is all of [0, 1].
    """
    hits = np.asarray(hits, bool)
    if not hits.size:
        return Interval(0.0, 0.0, 1.0)
    bounds = scipy.stats.binomtest(int(hits.sum()), hits.size).proportion_ci(1 - level, method="wilson")
    return Interval(float(hits.mean()), float(bounds.low), float(bounds.high))
