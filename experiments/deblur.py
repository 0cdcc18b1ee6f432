"""Restore blurred, noisy photographs by Wiener filters, Richardson-Lucy and U-Nets, learned under both conventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments import deblur_figures as figures
from experiments import deblur_methods as methods
from experiments.core import Claim, Context, Outcome, slug
from experiments.deblur_methods import (
    CONVENTIONS,
    RICHARDSON_LUCY,
    UNET,
    WIENER,
    Method,
    Params,
    Pictures,
    Solution,
)
from experiments.figures import scientific
from experiments.kernels import ASYMMETRY, flip
from experiments.statistics import Interval, paired

TRAINING = ("brick", "coffee", "grass", "gravel", "moon", "rocket")
TEST = ("astronaut", "camera", "chelsea", "coins")
SIDE = 248  # of a training picture
SCORED = 128  # of what is judged of a test picture

EQUIVALENT = 0.1  # dB
GAIN = 1.0  # dB
CONVERGED = 0.01  # of a learned Wiener filter, relative
CONTROL = f"control: {WIENER.name}\nless {RICHARDSON_LUCY.name}"
SAME = 1e-3  # of grey values in [0, 1] that float32 computes along two ways

METHOD = """\
Six photographs serve for training and four others for the test. Each is truly convolved with a 9×9 kernel by SciPy \
in float64, kernel flipped, together with its surroundings, so that no boundary shows; then white noise of standard \
deviation 0.02 is added (white is 1). The kernel is a comet: a streak that fades along 30 degrees. Its centroid is \
near the middle, so that its flip is another shape and not only a shift. What is judged is the PSNR of the middle \
128×128 pixels.

Three restorers learn from these pictures, through jaxconv.nn and under both conventions. The Wiener filter is one \
linear layer with an 11×11 kernel. Gradient descent with Polyak’s momentum minimises the squared error over all \
pixels of squares of 96×96, with constants and a number of steps that follow from the curvatures of this problem; \
NumPy solves the same problem in closed form, in float64. Richardson–Lucy, unrolled, starts from what was seen and \
multiplies it six times by the transposed blur of the ratio of what was seen to the blurred estimate. It learns the \
blur, positive and with sum 1, and a power for each factor. The transpose comes from JAX; it is the other \
convention, so that each step uses both. The U-Net (8 and 16 features on two levels) learns what to add to the \
picture. Its normalisation is left out, as is usual in restoration, since normalised features would depend on the \
size and the contrast of the whole picture. The last two learn by Adam from random tiles.

Each method is trained in pairs. The two of a pair start from independent random kernels and see the same tiles, one \
by convolution and one by correlation; nothing is flipped in between. A pair contributes one number, the difference \
of the two PSNR on the same test pictures, averaged over the four: pairs are independent, the pictures of one pair \
are not. Equivalence is claimed if two one-sided t tests at 5% place the mean difference within 0.1 dB of 0, which \
is the same as a 90% interval within the margin. It speaks of further trainings on these photographs, not of other \
photographs. Design and thresholds come from pilot runs with seeds from 100 on. There the difference varied by 0.10 \
dB from pair to pair for the U-Net, and by less for the others, so that 24 pairs show equivalence with a probability \
above 0.99 if there is no difference. The quick run has 12 pairs and leaves out the U-Net, whose trainings are not \
worth comparing if they are short.

A blur that is its own flip, the comet averaged with its flip, is the first control: now the kernels need no \
flipping. The others are the comet’s kernels used by the other convention as they stand, and the same test between \
two methods, which must not find them equivalent."""


@dataclass(frozen=True)
class Size:
    """How many pairs of trainings of each method there are, and the steps of those that learn from tiles."""

    pairs: int
    steps: dict[Method, int]


FULL = Size(24, {RICHARDSON_LUCY: 200, UNET: 700})
QUICK = Size(12, {RICHARDSON_LUCY: 200})


class Findings(NamedTuple):
    """What was learned from photographs blurred by `blur`, and the Wiener filters learned from a symmetric blur."""

    blur: np.ndarray
    test: Pictures  # without the margin
    learned: dict[str, dict[str, Params]]  # by method and convention
    restored: dict[str, dict[str, dict[str, np.ndarray]]]  # by method, convention and use
    solution: Solution
    closed_form: np.ndarray  # the pictures that the solution makes
    symmetric_test: Pictures
    symmetric_learned: dict[str, Params]
    symmetric_restored: dict[str, dict[str, np.ndarray]]
    symmetric_solution: Solution

    def psnr(self, method: str, convention: str, use: str = "own") -> np.ndarray:
        """Return the PSNR of each run and photograph, in dB."""
        return methods.psnr(self.restored[method][convention][use], self.test.sharp)

    def difference(self, method: str) -> np.ndarray:
        """Return the PSNR by convolution less that by correlation."""
        return self.psnr(method, "convolution") - self.psnr(method, "correlation")

    def seen(self) -> np.ndarray:
        """Return the PSNR of the blurred photographs."""
        return methods.psnr(self.test.seen, self.test.sharp)


def run(context: Context) -> Outcome:
    size = QUICK if context.quick else FULL
    with context.progress(total=2 * methods.CHUNKS * (2 + len(size.steps)), name="deblur") as bar:
        found = study(context, size, bar.update)
    claims = judge(found)
    measured = {claim.name: claim.measured for claim in claims}
    farthest = max(value for name, value in measured.items() if name.endswith("-equivalent"))
    return Outcome(
        answer=(
            "No. Each way to restore does equally well under both conventions, within a tenth of a decibel, and much "
            "worse with kernels that are not flipped. The Wiener filters of one are those of the other, flipped."
        ),
        method=METHOD,
        claims=claims,
        figures=figures.draw(found),
        tables=(figures.table(found),),
        highlights=(
            (f"{farthest:.3f} dB", "farthest end of the 90% intervals between the conventions"),
            (scientific(measured["wiener-flipped-pairs"]), "largest distance of Wiener filters, one of them flipped"),
            (f"{measured['unflipped-fails']:.1f} dB", "is lost at least where kernels are not flipped"),
        ),
    )


def study(context: Context, size: Size, tick: Callable[[], object]) -> Findings:
    blur, dtype = methods.comet(), context.dtype

    def starts(method: Method, stream: int, convention: str) -> list[Params]:
        index = CONVENTIONS.index(convention)
        return [method.start(context.rng(2, stream, index, run)) for run in range(size.pairs)]

    def learn_filters(training: Pictures, stream: int) -> dict[str, Params]:
        return {
            convention: methods.learn_filter(convention, training, starts(WIENER, stream, convention), dtype, tick)
            for convention in CONVENTIONS
        }

    training, test = photographs(context, blur)
    learned = {WIENER.name: learn_filters(training, 0)}
    for stream, (method, steps) in enumerate(size.steps.items(), 2):
        places = methods.draw_places(method, training, steps, size.pairs, context.rng(3, stream))
        learned[method.name] = {
            convention: methods.learn_from_tiles(
                method, convention, training, starts(method, stream, convention), places, dtype, tick
            )
            for convention in CONVENTIONS
        }
    solution = methods.least_squares(training.inner(methods.FILTERED))
    symmetric_training, symmetric_test = photographs(context, (blur + flip(blur)) / 2)
    symmetric_learned = learn_filters(symmetric_training, 1)
    return Findings(
        blur=blur,
        test=test.inner(SCORED),
        learned=learned,
        restored={
            method.name: methods.restored(method, learned[method.name], test.seen, dtype)
            for method in (WIENER, *size.steps)
        },
        solution=solution,
        closed_form=methods.apply(solution, test.seen),
        symmetric_test=symmetric_test.inner(SCORED),
        symmetric_learned=symmetric_learned,
        symmetric_restored=methods.restored(WIENER, symmetric_learned, symmetric_test.seen, dtype),
        symmetric_solution=methods.least_squares(symmetric_training.inner(methods.FILTERED)),
    )


def photographs(context: Context, blur: np.ndarray) -> tuple[Pictures, Pictures]:
    """Return the pictures for training and those for the test, with the same noise whatever the blur."""
    return (
        methods.take(TRAINING, SIDE, blur, context.rng(0)),
        methods.take(TEST, SCORED + 2 * methods.MARGIN, blur, context.rng(1)),
    )


def judge(found: Findings) -> tuple[Claim, ...]:
    names, pairs = list(found.learned), [f"pair {index + 1}" for index in range(len(found.difference(WIENER.name)))]
    intervals = {name: compare(found.difference(name)) for name in names}
    gains = np.stack([[found.psnr(name, c) - found.seen() for c in CONVENTIONS] for name in names])
    unflipped = np.stack([loss_unflipped(found, name) for name in names])
    exchanged = np.stack(
        [
            [
                np.abs(found.restored[name][c]["flipped"] - found.restored[name][c]["own"]).max((-3, -2, -1))
                for c in CONVENTIONS
            ]
            for name in names
        ]
    )
    symmetric_loss = [
        methods.psnr(uses["own"], found.symmetric_test.sharp)
        - methods.psnr(uses["unflipped"], found.symmetric_test.sharp)
        for uses in found.symmetric_restored.values()
    ]
    filters, symmetric = filters_of(found.learned[WIENER.name]), filters_of(found.symmetric_learned)
    kernels = {c: kernels_of(params) for c, params in found.learned[RICHARDSON_LUCY.name].items()}
    toward = distance(kernels["convolution"], found.blur), distance(flip(kernels["correlation"]), found.blur)
    away = distance(kernels["convolution"], flip(found.blur)), distance(kernels["correlation"], found.blur)
    closed = [
        distance(each[c] if c == "correlation" else flip(each[c]), solution.filter)
        for each, solution in ((filters, found.solution), (symmetric, found.symmetric_solution))
        for c in CONVENTIONS
    ]
    apart = compare(control(found))
    claims = [
        Claim(
            f"{slug(name)}-equivalent",
            f"{name}: the PSNR under the two conventions is equivalent within {EQUIVALENT} dB (two one-sided tests at "
            "5%; the end of the 90% interval that is farther from 0, dB).",
            interval.farthest,
            "<",
            EQUIVALENT,
            "Difference {}, from {} to {}.".format(*map(scientific, interval)),
        )
        for name, interval in intervals.items()
    ]
    claims += [
        Claim.worst(
            "restores",
            "Every restorer raises the PSNR of every test photograph by more than a decibel (dB).",
            gains,
            (names, list(CONVENTIONS), pairs, TEST),
            ">",
            GAIN,
        ),
        Claim.worst(
            "wiener-closed-form",
            "Every learned Wiener filter is that of least squares in closed form, or its flip under convolution "
            "(relative distance).",
            np.stack(closed).reshape(2, 2, -1),
            (["comet", "symmetric blur"], list(CONVENTIONS), pairs),
            "<",
            CONVERGED,
        ),
        Claim.worst(
            "wiener-flipped-pairs",
            "From independent starts, the Wiener filter of convolution is that of correlation flipped (relative "
            "distance).",
            distance(filters["convolution"], flip(filters["correlation"])),
            (pairs,),
            "<",
            CONVERGED,
        ),
        Claim.worst(
            "wiener-unflipped",
            "Not flipped, the filter of convolution is not that of correlation (relative distance).",
            distance(filters["convolution"], filters["correlation"]),
            (pairs,),
            ">",
            ASYMMETRY,
            control=True,
        ),
        Claim.worst(
            "wiener-symmetric",
            "With a symmetric blur, the comet averaged with its flip, the two learn nearly the same filter, not "
            "flipped (relative distance).",
            distance(symmetric["convolution"], symmetric["correlation"]),
            (pairs,),
            "<",
            ASYMMETRY / 2,
            control=True,
        ),
        Claim.worst(
            "symmetric-unflipped",
            "Used by the other convention as they stand, the filters learned from the symmetric blur restore as well "
            "as by their own (loss of PSNR, mean of the photographs, dB).",
            np.stack(symmetric_loss).mean(-1),
            (list(CONVENTIONS), pairs),
            "<",
            EQUIVALENT,
            control=True,
        ),
        Claim.worst(
            "unflipped-fails",
            "After the comet, every restorer fails when the other convention uses its kernels as they stand (loss of "
            "PSNR, mean of the photographs, dB).",
            unflipped,
            (names, list(CONVENTIONS), pairs),
            ">",
            GAIN,
            control=True,
        ),
        Claim.worst(
            "flipped-works",
            "When the other convention uses its kernels flipped, it makes the same picture (largest difference of grey "
            "values in [0, 1]).",
            exchanged,
            (names, list(CONVENTIONS), pairs),
            "<",
            SAME,
        ),
        Claim.worst(
            "adjoint",
            "The transpose of the blur, with which Richardson–Lucy spreads its corrections, is the other convention "
            "with the same kernel (relative difference from SciPy).",
            np.array([methods.adjoint_error(kernels[c][0], c) for c in CONVENTIONS]),
            (CONVENTIONS,),
            "<",
            1e-5,
        ),
        Claim.worst(
            "lucy-flipped-pairs",
            "From independent starts, the kernel that Richardson–Lucy learns by convolution is nearer to that by "
            "correlation flipped than to that by correlation (ratio of the distances).",
            distance(kernels["convolution"], flip(kernels["correlation"]))
            / distance(kernels["convolution"], kernels["correlation"]),
            (pairs,),
            "<",
            0.5,
        ),
        Claim.worst(
            "lucy-finds-the-blur",
            "The kernel that Richardson–Lucy learns is nearer to the blur than to its flip under convolution, and the "
            "other way round under correlation (ratio of the distances).",
            np.stack(toward) / np.stack(away),
            (list(CONVENTIONS), pairs),
            "<",
            1.0,
        ),
        Claim(
            "test-can-tell",
            "The test that finds the conventions equivalent tells restorers apart: the Wiener filter by "
            "convolution and Richardson–Lucy by correlation differ by more than the margin (the end of the 90% "
            "interval that is nearer to 0, dB).",
            apart.nearest,
            ">",
            EQUIVALENT,
            "Difference {}, from {} to {}.".format(*map(scientific, apart)),
            control=True,
        ),
    ]
    return tuple(claims)


def control(found: Findings) -> np.ndarray:
    """Return a difference of PSNR [pairs, photographs] that is there: that of two methods."""
    return found.psnr(WIENER.name, "convolution") - found.psnr(RICHARDSON_LUCY.name, "correlation")


def compare(differences: np.ndarray) -> Interval:
    """Compare [pairs, photographs]: paired by photograph, whose mean one pair contributes; pairs are independent."""
    return paired(differences.mean(-1))


def loss_unflipped(found: Findings, name: str) -> np.ndarray:
    """Return what is lost, in dB, if the other convention uses the kernels as they stand [conventions, pairs]."""
    return np.stack([(found.psnr(name, c) - found.psnr(name, c, "unflipped")).mean(-1) for c in CONVENTIONS])


def filters_of(learned: dict[str, Params]) -> dict[str, np.ndarray]:
    """Return the Wiener filters [pairs, height, width] of both conventions."""
    return {convention: np.asarray(params["kernel"], float)[..., 0, 0] for convention, params in learned.items()}


def kernels_of(params: Params) -> np.ndarray:
    """Return the kernels [pairs, height, width] that Richardson-Lucy takes for the blur."""
    return np.asarray(methods.blur_kernel(params), float)[..., 0, 0]


def distance(kernels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of kernels, relative to those that are given second."""
    return np.linalg.norm(kernels - others, axis=(-2, -1)) / np.linalg.norm(others, axis=(-2, -1))
