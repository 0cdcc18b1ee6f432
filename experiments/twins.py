"""Train pairs of networks, one per convention, the second started from the flipped filters of the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments import data
from experiments import twins_figures as figures
from experiments.core import Claim, Context, Outcome
from experiments.figures import scientific
from experiments.school import (
    CHUNKS,
    OPTIMIZERS,
    PLAIN,
    REFERENCE,
    WIDTHS,
    Comparison,
    Network,
    School,
    distance,
    disturb,
    flip,
    flip_network,
)

TOLERANCE = 1e-10  # in float64

METHOD = """\
Two networks of jaxconv.nn.CNN (two blocks of 3×3 filters, rectifier and maximum over 2×2 pixels, then a dense layer) \
learn scikit-learn’s handwritten digits from the same batches in the same order. One correlates, the other convolves, \
and the second starts from the filters of the first turned by 180°, with equal biases and dense layers. At that \
moment both compute the same function. If the adjoint of convolution is what it should be, gradient descent keeps \
them together for ever: equal losses, and filters that remain each other’s flip.

The twins would agree trivially if both flipped an array and then ran the same code. They do not: the correlation \
network runs XLA’s convolution, its twins run another algorithm, by FFT or by sums of shifted images, forward and \
backward. A network of plain flax.nnx.Conv layers joins them from the same start as the correlation network. \
Everything is trained under three optimisers and from several seeds.

In float64 twins must agree to 1e-10 throughout. In float32 rounding errors are larger, and they grow: whenever a \
rectifier’s input or the difference of two pixels under a maximum is within rounding of zero, one network takes one \
side and its twin the other, and from there they drift apart by up to a few percent. That is a property of the \
network, not of the flip, so the yardstick is the same network, started again from parameters that are each moved by \
one unit in the last place.

Two precautions keep exact ties out of the way. Biases start at random rather than at zero, since on a blank patch of \
a digit a zero bias would put every rectifier exactly on its kink. And Adam’s ε is 1e-4, since with the usual 1e-8 a \
gradient that is zero up to rounding makes a step of full size."""


class Findings(NamedTuple):
    """All that was measured: comparisons by precision and name, and from float64 some facts about the filters."""

    twins: dict[str, dict[str, Comparison]]
    reference: Comparison  # these three in float64
    plain: Comparison
    unflipped: Comparison
    disturbed: list[Comparison]  # in float32
    asymmetry: np.ndarray  # distance of the reference's filters from their own flip, as `Comparison.drift`
    moved: np.ndarray  # distance from their place after the first step, as `Comparison.drift`
    pictures: tuple[np.ndarray, np.ndarray]  # first seed's final first layer, reference and twin [optimisers, ...]


class Plan(NamedTuple):
    """How much is trained: `replicas` are reruns of the reference from a disturbed start, in float32."""

    twins: dict[str, Network]
    seeds: list[int]
    steps: int
    replicas: int

    @property
    def trainings(self) -> int:
        return 2 * (1 + len(self.twins)) + 2 + self.replicas


def study(context: Context, plan: Plan, tick: Callable[[], object]) -> Findings:
    digits = data.digits(context.rng(0))
    twins = {}
    with jax.enable_x64(True):
        school = School(digits, plan.seeds, plan.steps, np.float64, tick)
        start = school.start()
        course = school.train(REFERENCE, start)
        courses = {name: school.train(network, flip_network(start)) for name, network in plan.twins.items()}
        twins["float64"] = {name: school.compare(course, other, flipped=True) for name, other in courses.items()}
        reference = school.compare(course, course)
        asymmetry = distance(course.filters, [flip(layer) for layer in course.filters])
        moved = distance([layer[:1] for layer in course.filters], course.filters)
        pictures = tuple(each.filters[0][-1, 0] for each in (course, next(iter(courses.values()))))
        del courses
        unflipped = school.compare(course, school.train(next(reversed(plan.twins.values())), start))
        # One seed, since XLA's gradients of plain Flax are slow in compiled loops on CPUs.
        plain = school.compare(course, school.train(PLAIN, jax.tree.map(lambda array: array[:1], start)))
    with jax.enable_x64(False):
        school = School(digits, plan.seeds, plan.steps, np.float32, tick)
        start = school.start()
        course = school.train(REFERENCE, start)
        twins["float32"] = {
            name: school.compare(course, school.train(network, flip_network(start)), flipped=True)
            for name, network in plan.twins.items()
        }
        starts = [disturb(start, context.rng(2, index)) for index in range(plan.replicas)]
        disturbed = [school.compare(course, school.train(REFERENCE, other)) for other in starts]
    return Findings(twins, reference, plain, unflipped, disturbed, asymmetry, moved, pictures)


def judge(found: Findings) -> tuple[Claim, ...]:
    names, layers = list(found.twins["float64"]), [f"layer {index + 1}" for index in range(len(WIDTHS))]
    steps, seeds = (
        [f"{axis} {index}" for index in range(size)]
        for axis, size in zip(("step", "seed"), found.reference.losses.shape, strict=False)
    )
    exact, single = found.twins["float64"].values(), found.twins["float32"].values()

    everyone = (found.reference, *exact)
    # In float32, the largest over steps and layers: of each twin, and of the reruns of each seed and optimiser.
    drifts = np.stack([twin.drift for twin in single]).max((1, 2))
    disturbed = np.stack([rerun.drift for rerun in found.disturbed]).max((0, 1, 2))
    return (
        Claim.worst(
            "equal-losses",
            "In float64, twins have equal losses at every step under SGD, momentum and Adam (absolute difference, "
            "nats).",
            np.stack([twin.gap for twin in exact]),
            (names, steps, seeds, OPTIMIZERS),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "flipped-filters",
            "After every step their filters are each other’s flip (relative difference).",
            np.stack([twin.drift for twin in exact]),
            (names, layers, steps, seeds, OPTIMIZERS),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "plain-flax",
            "Layers of plain Flax keep the filters of the correlation network, unflipped (relative difference).",
            found.plain.drift,
            (layers, steps, seeds, OPTIMIZERS),
            "<",
            TOLERANCE,
        ),
        Claim.worst(
            "equal-answers",
            "At the end, twins answer every test digit alike, so that their accuracy is equal (share answered "
            "otherwise).",
            np.stack([twin.disagreement for twin in exact]),
            (names, seeds, OPTIMIZERS),
            "==",
            0.0,
        ),
        Claim.worst(
            "accuracy",
            "And they have learned to read (accuracy on test digits).",
            np.stack([each.accuracy for each in everyone]),
            (["correlation", *names], seeds, OPTIMIZERS),
            ">",
            0.95,
        ),
        Claim(
            "single-precision-typical",
            "In float32, twins drift apart no more than ten times as far as a network drifts from itself when its "
            "start is disturbed by one unit in the last place (ratio of the largest drifts, run by run; median).",
            float(np.median(drifts / disturbed)),
            "<=",
            10.0,
            f"Median of {drifts.size} runs, each against {len(found.disturbed)} disturbed reruns of the same seed.",
        ),
        Claim(
            "single-precision-largest",
            "The same of the largest drifts of all (ratio).",
            drifts.max() / disturbed.max(),
            "<=",
            10.0,
            f"Largest of the twins {scientific(drifts.max())}, of the disturbed reruns {scientific(disturbed.max())}.",
        ),
        Claim.worst(
            "unflipped-start",
            "Started from unflipped filters, the convolution network differs at step 0 already (difference of "
            "losses, nats).",
            found.unflipped.gap[0],
            (seeds, OPTIMIZERS),
            ">",
            1e-3,
            control=True,
        ),
        Claim.worst(
            "filters-are-not-symmetric",
            "No filters are anywhere near their own flip, which would make the claim on them empty (relative "
            "distance).",
            found.asymmetry,
            (layers, steps, seeds, OPTIMIZERS),
            ">",
            0.5,
            control=True,
        ),
        Claim.worst(
            "filters-move",
            "Training moves the filters, so that staying flipped is not staying put (relative distance).",
            found.moved[:, -1],
            (layers, seeds, OPTIMIZERS),
            ">",
            0.1,
            control=True,
        ),
        Claim.worst(
            "not-the-same-program",
            "The twins’ arithmetic differs: no float32 run repeats another bit for bit (largest drift of each).",
            drifts,
            (names, seeds, OPTIMIZERS),
            ">",
            0.0,
            control=True,
        ),
    )


def run(context: Context) -> Outcome:
    methods = ("fft",) if context.quick else ("fft", "shift")
    plan = Plan(
        twins={f"convolution by {method}": Network("convolution", method) for method in methods},
        seeds=[int(context.rng(1, index).integers(2**31)) for index in range(1 if context.quick else 3)],
        steps=200 if context.quick else 300,
        replicas=5,
    )
    with context.progress(total=CHUNKS * plan.trainings, name="twins") as bar:
        found = study(context, plan, bar.update)
    claims = judge(found)
    measured = {claim.name: claim.measured for claim in claims}
    runs = len(OPTIMIZERS) * (len(plan.seeds) * (plan.trainings - 1) + 1)
    return Outcome(
        answer=(
            "Yes. A convolution network that starts from the flipped filters of a correlation network has the same "
            "loss at every step, and its filters stay the flipped ones to the end."
        ),
        method=METHOD,
        claims=claims,
        figures=(figures.filters(found), figures.drifts(found), figures.losses(found)),
        tables=(figures.table(found),),
        highlights=(
            (str(runs), f"networks trained, {plan.steps} steps each, by {len(OPTIMIZERS)} optimisers"),
            (scientific(measured["flipped-filters"]), "largest difference of twins’ filters, relative"),
            (f"{100 * measured['accuracy']:.1f}%", "least test accuracy of a twin"),
        ),
        emblem=figures.card("Adam", found, panel="emblem"),
    )
