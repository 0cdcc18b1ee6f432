"""Measure the convolution theorem for both conventions, and what computing by it costs in time and in precision."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments import fourier_figures as figures
from experiments import fourier_learning as learning
from experiments import fourier_precision as precision
from experiments import fourier_theorem as theorem
from experiments import fourier_timing as timing
from experiments.core import Claim, Context, Outcome
from experiments.fourier_plans import registered
from experiments.kernels import ASYMMETRY

UNITS = 100.0  # the most that rounding may do, in units of the machine's epsilon
DIFFERENT = 0.1  # the least relative difference where a form of the theorem is wrong
TOLERANCE = 1e-3  # of a learned filter
AGREEMENT = 1e-4  # of one filter learned in two ways
NEAR = 10.0  # how many times the fastest algorithm's time the planner's choice may take

METHOD = """\
The theorem. The spectrum of a convolution is the product of the spectra, X(ω) W(ω); that of a correlation is \
X(ω) W(−ω). Where a correlation conjugates its filter, as SciPy’s does, it is X(ω) times the conjugate of W(ω). For \
real filters W(−ω) is that conjugate, for complex ones it is not: they are the control. Signals and filters are \
random in one to three dimensions, float32 to complex128, and whitened photographs and their lines; filters are \
redrawn until they differ from their own flip by at least half their norm. Results are computed by jaxconv.signal \
without any FFT, and spectra by the sums that define them, at random frequencies: no FFT can agree with itself here. A \
second measurement says what a program needs: transforms of the length of the full result, by NumPy. As short as the \
signal, they wrap the end around to the beginning, which is a control.

The algorithms. Banks of four filters are learned from whitened photographs, by plain gradient descent from a random \
start, through every algorithm that jaxconv has registered, on every problem that it can run and under both \
conventions (in a quick run, on the first such problem). Layer and gradients are forced to the algorithm where it can \
do both; a table says what ran.

The precision. The first eighth of a signal is loud, the rest quieter by a power of two, the dynamic range. The errors \
are those of the valid correlation, against sums that are exact until one last rounding. The error of a direct sum is \
claimed to depend on the samples under the filter alone, so that no dynamic range matters; that of an FFT is relative \
to the loudest, so that what is quiet loses with the range. The bounds are those that jaxconv.plan states: for sums, \
at each result, a multiple of the same sum of absolute values; for transforms, of its norm. Sums are the control for \
transforms, and transforms for the bound on sums.

The time. Every algorithm convolves float32 signals, to results of the same length, with filters of growing size, \
called in turn; the shortest of several calls counts. Times depend on the machine and on what else it does, so the one \
claim on them leaves a factor of ten. Algorithms that are modelled to take over a tenth of a second are left out."""


class Findings(NamedTuple):
    cases: list[theorem.Case]
    residuals: dict[str, np.ndarray]
    problems: dict[str, learning.Problem]
    lessons: dict[tuple[str, str], learning.Lesson]
    errors: dict[tuple[str, str], precision.Errors]
    timings: dict[str, list[timing.Timing]]


def run(context: Context) -> Outcome:
    found = study(context)
    claims = judge(found)
    measured = {claim.name: claim.measured for claim in claims}
    return Outcome(
        answer=(
            "Convolution becomes the product of the spectra, correlation the product with the spectrum at negated "
            "frequency. Every algorithm learns the same filters. An FFT gains time, and loses what is quiet beside "
            "what is loud."
        ),
        method=METHOD,
        claims=claims,
        figures=figures.draw(found),
        tables=figures.tables(found),
        highlights=(
            (f"{measured['theorem']:.1f}", f"largest residual of the theorem, in epsilons; {len(found.cases)} cases"),
            (f"{len(registered())}", "algorithms, all of which learn the same filters"),
            (
                f"{measured['planner-near-fastest']:.1f}",
                "times the fastest algorithm’s time, at most, is the time of the one that the planner chose",
            ),
        ),
        emblem=figures.growth(found, "float32", panel="emblem"),
    )


def study(context: Context) -> Findings:
    cases = list(theorem.draw(context, 1 if context.quick else 20))
    problems = learning.pose(context)
    pairs = learning.assign(problems, quick=context.quick)
    widths = sum(len(widths) for _, widths in timing.sweeps(context).values())
    total = len(cases) + len(pairs) + widths + sum(len(precision.methods(dtype)) for dtype in precision.DTYPES)
    with context.progress(total=total, name="fourier") as bar:
        residuals = theorem.measure(context, cases, bar.update)
        lessons = {
            (name, method): learning.learn(context, problems[name], method, bar.update) for name, method in pairs
        }
        errors = precision.study(context, bar.update)
        timings = timing.measure(context, bar.update)
    return Findings(cases, residuals, problems, lessons, errors, timings)


def judge(found: Findings) -> tuple[Claim, ...]:
    return (*judge_theorem(found), *judge_learning(found), *judge_precision(found), *judge_timing(found))


def judge_theorem(found: Findings) -> tuple[Claim, ...]:
    names, epsilons = [case.name for case in found.cases], np.array([case.epsilon for case in found.cases])
    complex_cases = np.array([case.is_complex for case in found.cases])

    def claim(name: str, statement: str, laws: tuple[str, ...], chosen: np.ndarray, *, hold: bool) -> Claim:
        values = np.stack([found.residuals[law][chosen] for law in laws])
        return Claim.worst(
            name,
            f"{statement} ({'residual, in units of epsilon' if hold else 'relative difference'}).",
            values / epsilons[chosen] if hold else values,
            (laws, [each for each, is_chosen in zip(names, chosen, strict=True) if is_chosen]),
            "<" if hold else ">",
            UNITS if hold else DIFFERENT,
            control=not hold,
        )

    everywhere = np.ones_like(complex_cases)
    return (
        claim(
            "theorem",
            "The spectrum of a convolution is X(ω) W(ω), that of a correlation X(ω) W(−ω), and of one that conjugates "
            "its filter X(ω) times the conjugate of W(ω)",
            theorem.SPECTRA,
            everywhere,
            hold=True,
        ),
        claim(
            "transforms",
            "Transforms as long as the full result compute it, the library’s under both conventions included",
            theorem.TRANSFORMS,
            everywhere,
            hold=True,
        ),
        claim(
            "real-filters",
            "For real filters the spectrum at negated frequency is the conjugate",
            theorem.REAL,
            ~complex_cases,
            hold=True,
        ),
        claim(
            "complex-filters",
            "For complex filters it is not: with the conjugate, a correlation without conjugation comes out wrong",
            theorem.REAL,
            complex_cases,
            hold=False,
        ),
        claim(
            "spectra-exchanged",
            "With the spectrum of the other convention the product is wrong",
            theorem.EXCHANGED,
            everywhere,
            hold=False,
        ),
        claim(
            "no-zeros-appended",
            "Transforms only as long as the signal wrap around, and are wrong",
            theorem.WRAPPED,
            everywhere,
            hold=False,
        ),
    )


def judge_learning(found: Findings) -> tuple[Claim, ...]:
    pairs = [f"{method}, {name}" for name, method in found.lessons]
    filters = [f"filter {index + 1}" for index in range(learning.FILTERS)]
    axes = (pairs, learning.CONVENTIONS, filters)
    lessons = list(found.lessons.values())
    unused = set(registered()) - {method for _, method in found.lessons}
    gap, where = learning.disagreement(found.lessons)
    return (
        Claim(
            "no-algorithm-left-out",
            "Every registered algorithm takes part (number of those that do not).",
            len(unused),
            "==",
            0,
            ", ".join(sorted(unused)),
        ),
        Claim.worst(
            "every-algorithm-learns",
            "Through every algorithm, convolution learns the filters and correlation their flips (relative error).",
            np.stack([lesson.errors[-1] for lesson in lessons]),
            axes,
            "<",
            TOLERANCE,
        ),
        Claim(
            "same-filters",
            "Any two algorithms learn the same filters of the same problem (relative difference).",
            gap,
            "<",
            AGREEMENT,
            where,
        ),
        Claim.worst(
            "not-the-other",
            "No algorithm comes near the wrong way round (relative distance).",
            np.stack([lesson.flipped for lesson in lessons]),
            axes,
            ">",
            ASYMMETRY / 2,
            control=True,
        ),
    )


def judge_precision(found: Findings) -> tuple[Claim, ...]:
    sums = {key: errors for key, errors in found.errors.items() if not errors.is_transform}
    transforms = {key: errors for key, errors in found.errors.items() if errors.is_transform}
    overlap = {key: errors for key, errors in transforms.items() if key[1] == "overlap"}

    def claim(
        name: str, statement: str, chosen: dict, values: list[np.ndarray], comparison: str, threshold: float
    ) -> Claim:
        axes = ([f"{method}, {dtype}" for dtype, method in chosen], precision.SIGNALS)
        control = name in ("sums-do-not-grow", "transforms-break-the-bound-on-sums")
        return Claim.worst(name, statement, np.stack(values), axes, comparison, threshold, control=control)

    def units(part: str, chosen: dict) -> list[np.ndarray]:
        return [getattr(errors, part).max(0) / np.finfo(dtype).eps for (dtype, _), errors in chosen.items()]

    return (
        claim(
            "transforms-grow",
            "Through a transform, the relative error of quiet results is proportional to the dynamic range (distance "
            "of the exponent from 1).",
            transforms,
            [np.abs(precision.slope(errors, dtype) - 1) for (dtype, _), errors in transforms.items()],
            "<",
            0.1,
        ),
        claim(
            "transforms-lose-quiet-results",
            f"At a range of {2**precision.BEYOND} times the reciprocal of the unit roundoff nothing is left of them "
            "(relative error).",
            transforms,
            [errors.quiet[-1] for errors in transforms.values()],
            ">",
            1,
        ),
        claim(
            "transforms-keep-their-bound",
            "The error of all results together keeps the bound that jaxconv.plan states, at every dynamic range (share "
            "of it).",
            transforms,
            [(errors.normwise / errors.bound).max(0) for errors in transforms.values()],
            "<",
            1,
        ),
        claim(
            "sums-do-not-grow",
            "Through direct sums the relative error of quiet results never grows (epsilons, at any dynamic range).",
            sums,
            units("quiet", sums),
            "<",
            UNITS,
        ),
        claim(
            "sums-keep-their-bound",
            "The error of each single result keeps the bound that jaxconv.plan states (share of it).",
            sums,
            [(errors.elementwise / errors.bound).max(0) for errors in sums.values()],
            "<",
            1,
        ),
        claim(
            "transforms-break-the-bound-on-sums",
            "That bound on each single result is none for transforms (multiple of it, at the last dynamic range).",
            transforms,
            [errors.elementwise[-1] / errors.bound for errors in transforms.values()],
            ">",
            1,
        ),
        claim(
            "overlap-loses-only-neighbours",
            "Overlap-save errs like a sum on results that are far from the loud part (epsilons, at any dynamic range).",
            overlap,
            units("far", overlap),
            "<",
            UNITS,
        ),
    )


def judge_timing(found: Findings) -> tuple[Claim, ...]:
    every = [(f"{name}, {each.taps} taps wide", each) for name, sweep in found.timings.items() for each in sweep]
    labels, sizes = zip(*every, strict=True)
    ends = [(sweep[0], False) for sweep in found.timings.values()]
    ends += [(sweep[-1], True) for sweep in found.timings.values()]
    wrong = sum(each.by_transform != expected for each, expected in ends)
    return (
        Claim.worst(
            "planner-near-fastest",
            "Whatever the size of the filter, the planner’s choice is not far from the fastest algorithm (multiple of "
            "its time).",
            np.array([each.regret for each in sizes]),
            (labels,),
            "<",
            NEAR,
        ),
        Claim.worst(
            "choice-matters",
            "In each sweep there is a size at which the slowest algorithm would have been a bad choice (multiple of "
            "the fastest one’s time).",
            np.array([max(each.spread for each in sweep) for sweep in found.timings.values()]),
            (list(found.timings),),
            ">",
            NEAR,
            control=True,
        ),
        Claim(
            "planner-crosses-over",
            "The planner takes no transform for the smallest filter of a sweep and one for the largest (exceptions).",
            wrong,
            "==",
            0,
        ),
    )
