"""Train many networks of either convention, independently, and compare what they achieve and what their filters are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments import energy
from experiments import ensembles_figures as figures
from experiments import ensembles_networks as networks
from experiments.core import Claim, Context, Outcome
from experiments.ensembles_networks import ASYMMETRIC, CONDITIONS, CONVENTIONS, NATURAL, SYMMETRIC, Ensemble, Task
from experiments.statistics import Interval, holm, paired, unpaired

RUNS, QUICK_RUNS = 160, 40  # networks of each convention
LEVEL = 0.01  # of each one-sided test of equal accuracy
MARGIN, QUICK_MARGIN = 1.0, 2.0  # percentage points
FAMILYWISE = 0.001
SPLITS, RESAMPLINGS = 10_000, 2_000
QUANTILE = 0.99  # of the distances between split halves

FLIPPED, UNFLIPPED, START = range(3)
COMPARISONS = ("flipped", "unflipped", "untrained")
TASKS: dict[str, Callable[[np.random.Generator], Task]] = {"digits": networks.digits, "textures": networks.textures}

METHOD = """\
Networks of jaxconv.nn.CNN (two blocks of 3×3 filters, eight in the first layer, rectifier and maximum over 2×2 \
pixels, then a dense layer) learn scikit-learn’s digits, 8×8 pixels, and 12×12 patches of three textures (brick, \
grass, gravel) from scikit-image’s photographs at half their resolution. Patches of the test come from a part of \
each photograph that no training patch touches. Every network has a start and an order of batches of its own, so \
that none is the twin of another: {runs} networks of each convention on each form of the data. Filters of the first \
layer start at 0.3 of the usual scale, so that what is learned outweighs where it started.

Independent networks learn different filters, so that no filter of one has a counterpart in another. What can be \
compared is the law that filters are drawn from, and theory has it that the law under convolution is that under \
correlation, flipped. Laws are compared by the energy distance between the filters of two groups of networks. It \
averages over pairs of filters of different networks only, and networks, not filters, are permuted, split and \
resampled, for the filters of one network depend on each other.

What the statistics can show, and what they cannot. That mean accuracies are equivalent is shown, by two one-sided \
Welch tests at {level} each, whose rejection bounds the difference. That laws are equal cannot be shown. A \
permutation test that does not reject says only that no difference was seen; what it would have seen, the controls \
tell: an asymmetry built into the data, which the same test with as many networks must detect once the filters are \
not flipped. The margin on the distance is the 99% quantile of the distances between random halves of the \
correlation networks. Such halves are smaller groups, by chance further apart than whole ones, so that a distance \
within the margin is one that chance alone makes between halves; that is not a bound on the distance of the laws. \
Such a bound is the upper end of the interval in the last figure, and it is not small. All of this speaks of fresh \
starts and orders on these data and this split, for the network is the unit. Of other data and architectures it says \
nothing. The {tests} p values are adjusted as one family, by Holm’s method.

The data come in three forms. As they are, the unflipped comparison is only reported, as nobody knows beforehand how \
asymmetric they are. Asymmetric: digits become reliefs lit from the upper left, shadows a fifth as strong as lights, \
and patches of brick bear a mark, bright at the upper left and dark at the lower right; here unflipped filters must \
differ. Symmetric: every image is learned both ways round, and unflipped filters must agree as well as flipped ones.

Thresholds were fixed beforehand. The number of networks and the asymmetries were chosen in pilot runs at seeds from \
100 on, by the standard error of the difference of accuracies (below a fifth of the margin) and by the power of the \
control. Most asymmetries that were tried moved the filters too little. With 128 networks the unflipped distance \
between those that learn textures exceeded its critical value by 2.6 to 4.3 standard errors over networks in four \
pilot runs, and was only 1.6 times the margin in a full run at another seed, since other patches and marks move the \
distance too. Hence {full} networks; that the control holds at any seed is likely, not certain. A quick run learns \
digits only, with {quick} networks, and its margin on accuracy is two points."""


class Contrast(NamedTuple):
    """Two groups of networks, by their filters: energy distance, that of permutations of networks, and p value.

    `margin`: the quantile of that between halves of the first group; `effect`: the root of the coefficient.
    """

    distance: float
    permuted: np.ndarray
    p_value: float
    margin: float
    effect: Interval


class Findings(NamedTuple):
    """What was measured on each task.

    `contrasts` [tasks][conditions][comparisons], `adjusted` their p values as a family; `differences` of accuracy
    [tasks][conditions], and `exchanged`, those that using convolution filters for correlation makes [tasks], in
    percentage points.
    """

    tasks: tuple[Task, ...]
    ensembles: tuple[Ensemble, ...]
    contrasts: list[list[list[Contrast]]]
    adjusted: np.ndarray
    differences: list[list[Interval]]
    exchanged: list[Interval]
    margin: float

    def array(self, pick: Callable[[Contrast], float]) -> np.ndarray:
        """Return a number of every contrast, [tasks, conditions, comparisons]."""
        return np.array([[[pick(each) for each in row] for row in task] for task in self.contrasts])


def contrast(first: np.ndarray, second: np.ndarray, permutations: int, rng: np.random.Generator) -> Contrast:
    """Compare two groups of networks by their filters, [networks, filters, height, width]."""
    groups = np.concatenate([first, second])
    distances = energy.mean_distances(groups.reshape(*groups.shape[:2], -1))
    count = len(first)
    distance, permuted, p_value = energy.permutation_test(distances, count, permutations, rng)
    halves = energy.split_halves(distances[:count, :count], SPLITS, rng)
    effect = energy.coefficient(distances, count, 0.05, RESAMPLINGS, rng)
    return Contrast(distance, permuted, p_value, float(np.quantile(halves, QUANTILE)), effect)


def compare(ensemble: Ensemble, permutations: int, rng: np.random.Generator) -> list[list[Contrast]]:
    """Return the contrasts of one task, [conditions][comparisons]."""
    return [
        [contrast(mine, other, permutations, rng) for other in (theirs[..., ::-1, ::-1], theirs, starts[1])]
        for (mine, theirs), starts in zip(ensemble.filters, ensemble.starts, strict=True)
    ]


def study(
    context: Context, names: tuple[str, ...], runs: int, permutations: int, tick: Callable[[], object]
) -> Findings:
    tasks = tuple(TASKS[name](context.rng(0, index)) for index, name in enumerate(names))
    ensembles = tuple(networks.train(task, runs, context.rng(1, index), tick) for index, task in enumerate(tasks))
    contrasts = [compare(each, permutations, context.rng(2, index)) for index, each in enumerate(ensembles)]
    p_values = np.array([[[each.p_value for each in row] for row in task] for task in contrasts])
    percent = [100 * each.accuracy for each in ensembles]
    return Findings(
        tasks,
        ensembles,
        contrasts,
        holm(p_values),
        [[unpaired(*pair, level=LEVEL) for pair in accuracy] for accuracy in percent],
        [
            paired(accuracy[NATURAL, 1] - 100 * each.exchanged, level=LEVEL)
            for accuracy, each in zip(percent, ensembles, strict=True)
        ],
        QUICK_MARGIN if context.quick else MARGIN,
    )


def judge(found: Findings) -> tuple[Claim, ...]:
    tasks = [task.name for task in found.tasks]
    runs = [f"network {index}" for index in range(found.ensembles[0].accuracy.shape[-1])]
    distance, margin = found.array(lambda each: each.distance), found.array(lambda each: each.margin)
    cells, alone = (tasks, CONDITIONS), (tasks,)
    natural = np.stack([each.accuracy[NATURAL] for each in found.ensembles])
    return (
        Claim.worst(
            "equivalent-accuracy",
            f"Mean test accuracies of the two conventions are equivalent (far end of the {100 - 200 * LEVEL:.0f}% "
            "interval of the difference, percentage points).",
            np.array([row[NATURAL].farthest for row in found.differences]),
            alone,
            "<",
            found.margin,
        ),
        Claim.worst(
            "within-the-margin",
            "Filters of one convention and flipped filters of the other are no further apart than halves of one "
            "convention (energy distance over the margin).",
            distance[..., FLIPPED] / margin[..., FLIPPED],
            cells,
            "<=",
            1.0,
        ),
        Claim.worst(
            "not-rejected",
            "No permutation test over networks tells them apart (p value, adjusted for all tests).",
            found.adjusted[..., FLIPPED],
            cells,
            ">",
            FAMILYWISE,
        ),
        Claim.worst(
            "accuracy",
            "Every network has learned its task (test accuracy; chance is 0.1 for digits, 0.33 for textures).",
            natural,
            (tasks, CONVENTIONS, runs),
            ">",
            0.8,
        ),
        Claim.worst(
            "exchanged",
            "Using the filters of convolution for correlation, without flipping them, costs more accuracy than the "
            "margin (near end of the interval, percentage points).",
            np.array([each.nearest for each in found.exchanged]),
            alone,
            ">",
            found.margin,
            control=True,
        ),
        Claim.worst(
            "asymmetric-data",
            "When an asymmetry is built into the data, unflipped filters are told apart (adjusted p value).",
            found.adjusted[:, ASYMMETRIC, UNFLIPPED],
            alone,
            "<=",
            FAMILYWISE,
            control=True,
        ),
        Claim.worst(
            "asymmetric-distance",
            "With that asymmetry, unflipped filters are further apart than halves of one convention (energy distance "
            "over the margin).",
            distance[:, ASYMMETRIC, UNFLIPPED] / margin[:, ASYMMETRIC, UNFLIPPED],
            alone,
            ">",
            1.0,
            control=True,
        ),
        Claim.worst(
            "symmetric-data",
            "When the data are made symmetric, unflipped filters are not told apart (adjusted p value).",
            found.adjusted[:, SYMMETRIC, UNFLIPPED],
            alone,
            ">",
            FAMILYWISE,
            control=True,
        ),
        Claim.worst(
            "filters-are-learned",
            "Trained filters are told from untrained ones, so that their law is not that of the starts (adjusted p "
            "value).",
            found.adjusted[..., START],
            cells,
            "<=",
            FAMILYWISE,
            control=True,
        ),
    )


def run(context: Context) -> Outcome:
    names = ("digits",) if context.quick else tuple(TASKS)
    runs = QUICK_RUNS if context.quick else RUNS
    permutations = 19_999 if context.quick else 49_999
    with context.progress(total=networks.CHUNKS * len(names), name="ensembles") as bar:
        found = study(context, names, runs, permutations, bar.update)
    trained = runs * len(CONVENTIONS) * len(CONDITIONS) * len(names)
    gap = max((row[NATURAL] for row in found.differences), key=lambda each: abs(each.estimate))
    distances = found.array(lambda each: each.distance) / found.array(lambda each: each.margin)
    return Outcome(
        answer=(
            "Yes, as far as can be told. Networks that never saw each other reach the same accuracy under both "
            "conventions, and the filters that they learn differ by the flip and by chance."
        ),
        method=METHOD.format(runs=runs, full=RUNS, quick=QUICK_RUNS, level=LEVEL, tests=found.adjusted.size),
        claims=judge(found),
        figures=figures.draw(found),
        tables=figures.tables(found),
        highlights=(
            (f"{trained:,}", "networks trained, each from a start of its own"),
            (f"{abs(gap.estimate):.2f} points", "largest difference of mean accuracy"),
            (
                f"{distances[:, ASYMMETRIC, UNFLIPPED].min():.1f} × margin",
                "distance of unflipped filters, asymmetric data",
            ),
        ),
        emblem=figures.emblem(found),
    )
