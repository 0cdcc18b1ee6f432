"""The energy distance between two groups of independent units, each of which is a set of vectors.

The vectors of one unit (the filters of one network) depend on each other; only units are independent. Hence every
average is one over units, and it is units that are permuted, split and resampled. All of that follows from one matrix:
the mean distance between a vector of one unit and a vector of another.

The energy distance of two laws P and Q is 2 E|X - Y| - E|X - X'| - E|Y - Y'|, for independent X and X' of law P, Y and
Y' of law Q. It is 0 if P = Q, and otherwise positive (G. J. Szekely and M. L. Rizzo, "Energy statistics: a class of
statistics based on distances", Journal of Statistical Planning and Inference 143, 2013). Its root is a distance in a
Hilbert space, between the means of what the units are embedded as.
"""

from __future__ import annotations

import numpy as np

from experiments.statistics import Interval

CHUNK = 4096  # groupings that are evaluated at a time, which bounds the memory


def mean_distances(units: np.ndarray) -> np.ndarray:
    """Return the mean Euclidean distance between a vector of one unit and one of another, [units, units].

    On the diagonal a unit's vectors meet each other and themselves.

    Parameters
    ----------
    units
        [units, vectors, dimensions]
    """
    units = np.asarray(units, float)
    if units.ndim != 3 or 0 in units.shape:
        raise ValueError(f"units have shape {units.shape}; needed is [units, vectors, dimensions], none of them 0")
    if not np.isfinite(units).all():
        raise ValueError("vectors that are not finite have no distances")
    return np.stack([np.linalg.norm(unit[:, None, None] - units, axis=-1).mean((0, -1)) for unit in units])


def energy(distances: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return unbiased estimates of the energy distance, one for each grouping; they may be negative.

    Only different units meet, so that the dependence within a unit plays no part (a U statistic).

    Parameters
    ----------
    distances
        Of all units, as `mean_distances` gives them.
    groups
        [groupings, units]: 1 for the units of the first group, -1 for those of the second, 0 for those of neither.
    """
    apart = distances - np.diag(np.diag(distances))
    results = []
    for piece in np.split(groups, range(CHUNK, len(groups), CHUNK)):
        first, second = (piece == 1).astype(float), (piece == -1).astype(float)
        n, m = first.sum(1), second.sum(1)
        if min(n.min(), m.min()) < 2:
            raise ValueError(f"groups of {int(n.min())} and {int(m.min())} units; each needs two or more")
        reach, back = first @ apart, second @ apart
        between = (reach * second).sum(1) / (n * m)
        within = (reach * first).sum(1) / (n * (n - 1)) + (back * second).sum(1) / (m * (m - 1))
        results.append(2 * between - within)
    return np.concatenate(results)


def grouping(first: int, second: int) -> np.ndarray:
    """Return the labels of units of which the first group comes first."""
    return np.repeat([1, -1], [first, second])


def shuffled(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random permutations of labels, [count, units]."""
    return rng.permuted(np.tile(np.asarray(labels, np.int8), (count, 1)), axis=1)


def permutation_test(
    distances: np.ndarray, first: int, count: int, rng: np.random.Generator
) -> tuple[float, np.ndarray, float]:
    """Test whether two groups of units are draws from one law.

    Returns the energy distance of the groups, that of `count` random divisions of all units into groups of these sizes,
    and the p value: the share of divisions that are at least as far apart, counting the one that was found. If units
    are exchangeable it is at most any level with at most that probability, exactly (B. Phipson and G. K. Smyth,
    "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular Biology 9, 2010).

    Parameters
    ----------
    distances
        Of all units, those of the first group before those of the second.
    first
        Number of units in the first group.
    count
        Number of divisions.
    rng
        Draws the divisions.
    """
    labels = grouping(first, len(distances) - first)
    observed = float(energy(distances, labels[None])[0])
    permuted = energy(distances, shuffled(labels, count, rng))
    # A division that repeats the groups ties with them but for rounding.
    reached = np.count_nonzero(permuted >= observed - 1e-12 * distances.max())
    return observed, permuted, (1 + reached) / (1 + count)


def split_halves(distances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the energy distances between random halves of one group; of an odd number of units one is left out."""
    half = len(distances) // 2
    labels = np.concatenate([grouping(half, half), np.zeros(len(distances) % 2, int)])
    return energy(distances, shuffled(labels, count, rng))


def coefficient(distances: np.ndarray, first: int, level: float, count: int, rng: np.random.Generator) -> Interval:
    """Return the root of the coefficient of inhomogeneity, with a confidence interval.

    The coefficient is the energy distance over 2 E|X - Y|: 0 for equal laws, 1 for laws without spread, and its root is
    a distance over a scale. The estimate is the root of the unbiased one, or 0 where that is negative. The interval is
    the distance between the empirical laws, each unit's own vectors included, more or less the quantile (1 - `level`)
    of how far resampled groups move from them. By the triangle inequality it covers with at least that probability,
    in large samples, whether or not the laws are equal (where the usual bootstrap of an energy distance fails); it
    is wide. The scale is taken as known.

    Parameters
    ----------
    distances
        Of all units, those of the first group before those of the second.
    first
        Number of units in the first group.
    level
        Probability of missing the truth, at most.
    count
        Number of resamplings.
    rng
        Draws the units.
    """
    sizes = (first, len(distances) - first)
    unbiased = energy(distances, grouping(*sizes)[None])[0]
    law = np.repeat([1 / sizes[0], -1 / sizes[1]], sizes)
    drawn = [rng.multinomial(size, np.full(size, 1 / size), count) / size for size in sizes]
    # Resampled means vary by (n - 1) / n less than means of n do.
    inflation = np.repeat([np.sqrt(size / (size - 1)) for size in sizes], sizes)
    moved = inflation * (np.concatenate([drawn[0], -drawn[1]], axis=1) - law)
    reach = np.quantile(_length(moved, distances), 1 - level)
    apart = _length(law[None], distances)[0]
    scale = np.sqrt(2 * distances[:first, first:].mean())
    estimate = np.sqrt(max(unbiased, 0))
    return Interval(float(estimate / scale), float(max(apart - reach, 0) / scale), float((apart + reach) / scale))


def _length(weights: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the length of signed combinations of units, [count, units], whose weights sum to 0, in Hilbert space."""
    return np.sqrt(np.maximum(-((weights @ distances) * weights).sum(1), 0))
