"""Teach students with filters of their own what a network with known filters says, and see whose filters they find."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from experiments import statistics
from experiments import students_figures as figures
from experiments.core import Claim, Context, Outcome
from experiments.statistics import Interval
from experiments.students_training import (
    CHUNKS,
    CONVENTIONS,
    FILTERS,
    Class,
    Students,
    cosines,
    draw_class,
    educate,
    turn,
)

SPARE = FILTERS + 2  # filters of a student that has some to spare
CONVERGED = 1e-3  # share of the variance that a student may leave unexplained
MATCHED = 0.95  # least |cosine| of every filter
FORETOLD, OTHER = range(2)  # orientations

METHOD = f"""\
A teacher is a network of two layers with a hyperbolic tangent between them, both computed by correlation: {FILTERS} \
filters of 5×5, then 8 of 3×3 on what they give. Its filters are known, random, and have no entry near zero, for a \
filter with an empty margin could be shifted; no filter resembles another or any flip (|cosine| at most 0.5). Each \
student has a teacher, lessons and a random start of its own, so that students are independent. It is told the \
teacher’s answers, without noise, to images cut from eight whitened photographs, and learns by Adam. Teachers answer \
in NumPy, students compute by jaxconv.nn.Conv.

Whether a student has converged is decided before anyone looks at its filters, from images of two photographs that \
it has never seen: it may leave at most {CONVERGED} of the variance of the answers unexplained. Only then are its \
filters assigned to the teacher’s by the Hungarian algorithm (H. W. Kuhn, Naval Research Logistics Quarterly 2, \
1955), which makes the sum of the |cosines| largest, once with the teacher’s filters as they are and once with all \
of them turned by 180°. The order of filters is free and so is their sign, since the tangent is odd. Length is not, \
but the cosine leaves it out. A student matches if all {FILTERS} |cosines| are above {MATCHED}; the number that \
counts is that of its worst filter.

With as many filters as the teacher, many students end in a local minimum. With two to spare nearly all converge, \
and the spare ones copy others or fade. The full run trains both kinds, and looks at the second layers where there \
is none to spare, under the assignment and the signs of the first. The claims on filters speak of students that \
converge, and their share is reported. Shares have 95% intervals of Wilson, means of Student, with the student as \
the unit; the unfavourable end decides. Sizes, rate and thresholds were chosen in a pilot with other teachers.

In the experiment twins the two conventions set out from starts that are flipped copies of each other. Here no start \
is copied: what brings the flip about is the teacher alone."""


class Group(NamedTuple):
    """Students of one convention with so many filters, and what was found of their first layers.

    `after` and `before` training: |cosines| of matched filters [orientations, runs, teacher's filters], the foretold
    orientation first; `second`, of matched filters of the second layer in the foretold orientation [runs, filters], is
    None where there are filters to spare.
    """

    convention: str
    filters: int
    symmetric: np.ndarray
    students: Students
    after: np.ndarray
    before: np.ndarray
    second: np.ndarray | None

    @property
    def name(self) -> str:
        return f"{self.convention}, {self.filters} filters"

    def converged(self, *, symmetric: bool = False) -> np.ndarray:
        """Tell which students passed, of teachers of one kind."""
        return self.students.unexplained[self.symmetric == symmetric] < CONVERGED

    def graduates(self, values: np.ndarray, *, symmetric: bool = False) -> np.ndarray:
        """Return the entries [runs, ...] of the students that passed, of teachers of one kind."""
        return values[self.symmetric == symmetric][self.converged(symmetric=symmetric)]

    def matched(self, orientation: int) -> np.ndarray:
        """Tell which students of asymmetric teachers match, of those that passed."""
        return self.graduates(self.after[orientation]).min(-1) > MATCHED

    def matched_both(self) -> np.ndarray:
        """Tell which students of symmetric teachers match in both orientations, of those that passed."""
        return self.graduates(self.after.min((0, 2)), symmetric=True) > MATCHED


class Findings(NamedTuple):
    classes: dict[int, Class]
    groups: list[Group]


class Plan(NamedTuple):
    """How much is trained: numbers of filters, students with asymmetric and symmetric teachers, steps."""

    widths: tuple[int, ...]
    asymmetric: int
    symmetric: int
    steps: int


def match(teacher: np.ndarray, student: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign to each filter of a teacher [height, width, filters] one of a student; return cosines and partners."""
    table = cosines(teacher, student)
    rows, partners = linear_sum_assignment(-np.abs(table))
    return table[rows, partners], partners


def compare(pupils: Class, students: Students, convention: str, filters: int, symmetric: np.ndarray) -> Group:
    """Set every student's filters beside its teacher's in both orientations."""

    def oriented(orientation: int) -> Callable[[np.ndarray], np.ndarray]:
        turned = (convention == "convolution") == (orientation == FORETOLD)
        return turn if turned else lambda filters: filters

    def judged(learned: np.ndarray) -> np.ndarray:
        return np.array(
            [
                [
                    np.abs(match(place(teacher), student)[0])
                    for teacher, student in zip(pupils.teachers.first, learned, strict=True)
                ]
                for place in map(oriented, (FORETOLD, OTHER))
            ]
        )

    second = None
    if filters == FILTERS:
        second = np.array(
            [
                _second(oriented(FORETOLD), *each)
                for each in zip(
                    pupils.teachers.first, pupils.teachers.second, students.first, students.second, strict=True
                )
            ]
        )
    return Group(convention, filters, symmetric, students, judged(students.first), judged(students.start), second)


def _second(
    orient: Callable[[np.ndarray], np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    student_first: np.ndarray,
    student_second: np.ndarray,
) -> np.ndarray:
    """Return the cosines of second layers under the permutation and the signs that match the first."""
    signs, partners = match(orient(first), student_first)
    learned = np.sign(signs)[:, None] * student_second[:, :, partners]
    pairs = np.moveaxis(orient(second), 2, -1), np.moveaxis(learned, 2, -1)  # [height, width, outputs, filters]
    return np.diagonal(cosines(*pairs))


def study(context: Context, plan: Plan, tick: Callable[[], object]) -> Findings:
    runs = range(plan.asymmetric + plan.symmetric)
    symmetric = np.array([run >= plan.asymmetric for run in runs])
    classes, groups = {}, []
    for index, filters in enumerate(plan.widths):
        classes[filters] = draw_class([context.rng(0, index, run) for run in runs], symmetric=list(symmetric))
        for stream, convention in enumerate(CONVENTIONS, 1):
            rngs = [context.rng(stream, index, run) for run in runs]
            taught = educate(classes[filters], rngs, filters, convention, plan.steps, context.dtype, tick)
            groups.append(compare(classes[filters], taught, convention, filters, symmetric))
    return Findings(classes, groups)


def mean(values: np.ndarray) -> Interval:
    """Return the mean of cosines over students with Student's 95% interval; of fewer than two, nothing is known."""
    return statistics.paired(values, level=0.025) if len(values) > 1 else Interval(0.0, -1.0, 1.0)


def judge(found: Findings) -> tuple[Claim, ...]:
    groups = found.groups
    exact = {group.name: group.second for group in groups if group.second is not None}
    unfavourable = "unfavourable end of the 95% interval"
    of_those = f"(share of those converged, {unfavourable})"

    def shared(
        name: str, statement: str, hits: dict[str, np.ndarray], comparison: str, threshold: float, *, control: bool
    ) -> Claim:
        """Claim something of the share of yes in every row."""
        ends = [end for row in hits.values() for end in statistics.share(row)[1:]]
        counts = "; ".join(f"{key}: {row.sum()} of {row.size}" for key, row in hits.items())
        bound = min(ends) if comparison == ">" else max(ends)
        return Claim(name, statement, bound, comparison, threshold, f"{counts}.", control)

    def found_by(convention: str) -> dict[str, np.ndarray]:
        return {group.name: group.matched(FORETOLD) for group in groups if group.convention == convention}

    second = ()
    if exact:
        values = [group.graduates(group.second).min(-1) for group in groups if group.second is not None]
        second = (
            Claim.worst(
                "second-layer",
                "The second layers follow suit, under the order and the signs of the first (mean cosine of a student’s "
                f"worst filter, subtracted from 1, {unfavourable}).",
                1 - np.array([mean(each).low for each in values]),
                (list(exact),),
                "<",
                0.01,
            ),
        )
    names = [group.name for group in groups]
    return (
        shared(
            "students-converge",
            f"Most students with {SPARE} filters converge, judged by images of photographs that they have never seen "
            f"(share, {unfavourable}).",
            {group.name: group.converged() for group in groups if group.filters == SPARE},
            ">",
            0.5,
            control=False,
        ),
        shared(
            "convolution-finds-the-flipped",
            f"Convolution students that converge have found the flipped filters of correlation teachers {of_those}.",
            found_by("convolution"),
            ">",
            0.8,
            control=False,
        ),
        shared(
            "correlation-finds-them",
            f"Correlation students have found the filters as they are {of_those}.",
            found_by("correlation"),
            ">",
            0.8,
            control=False,
        ),
        Claim.worst(
            "close-match",
            "They have found them closely (mean |cosine| of a student’s worst filter, subtracted from 1, "
            f"{unfavourable}).",
            1 - np.array([mean(group.graduates(group.after[FORETOLD]).min(-1)).low for group in groups]),
            (names,),
            "<",
            0.01,
        ),
        *second,
        shared(
            "other-orientation",
            f"In the other orientation they do not match {of_those}.",
            {group.name: group.matched(OTHER) for group in groups},
            "<",
            0.2,
            control=True,
        ),
        Claim.worst(
            "other-orientation-cosine",
            f"In the other orientation they are far from it (mean |cosine| of all filters, {unfavourable}).",
            np.array([mean(group.graduates(group.after[OTHER]).mean(-1)).high for group in groups]),
            (names,),
            "<",
            0.6,
            control=True,
        ),
        Claim.worst(
            "before-training",
            f"Before training they are far from it in both (mean |cosine| of all filters, {unfavourable}).",
            np.array([[mean(each[~group.symmetric].mean(-1)).high for each in group.before] for group in groups]),
            (names, ["foretold orientation", "other orientation"]),
            "<",
            0.6,
            control=True,
        ),
        shared(
            "symmetric-teacher",
            f"Where the teacher’s filters are symmetric, students match in both orientations {of_those}.",
            {group.name: group.matched_both() for group in groups},
            ">",
            0.5,
            control=True,
        ),
    )


def run(context: Context) -> Outcome:
    plan = Plan((SPARE,), 28, 8, 600) if context.quick else Plan((SPARE, FILTERS), 48, 16, 800)
    with context.progress(total=CHUNKS * len(plan.widths) * len(CONVENTIONS), name="students") as bar:
        found = study(context, plan, bar.update)
    claims = judge(found)
    spare = [group for group in found.groups if group.filters == SPARE]
    passed = np.concatenate([group.converged() for group in spare])
    own, other = (
        mean(np.concatenate([group.graduates(group.after[index]).ravel() for group in found.groups])).estimate
        for index in (FORETOLD, OTHER)
    )
    return Outcome(
        answer=(
            "Yes, whenever they learn the task at all. From starts of their own, correlation students arrive at the "
            "teacher’s filters, convolution students at the same filters turned by 180°."
        ),
        method=METHOD,
        claims=claims,
        figures=figures.draw(found),
        tables=(figures.table(found),),
        highlights=(
            (str(sum(len(group.symmetric) for group in found.groups)), "students, each from a start of its own"),
            (f"{100 * passed.mean():.0f}%", f"of those with {SPARE} filters converge"),
            (f"{own:.3f}", f"mean |cosine| with the filters foretold; {other:.2f} with them turned"),
        ),
        emblem=figures.pictures(found, panel="emblem"),
    )
