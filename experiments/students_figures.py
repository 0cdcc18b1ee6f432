"""The drawings of `experiments.students`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments import statistics, students
from experiments.core import Figure, Panel, Table
from experiments.figures import COLORS, Picture, chart, log_axis, signed_png, strip
from experiments.students_training import CONVENTIONS, FILTERS, turn

if TYPE_CHECKING:
    from experiments.students import Findings, Group

GAP = 1  # pixels between filters
POINTS = 80  # of a curve of losses
FLOOR = 1e-9  # of what is drawn on an axis of unexplained variance


def row(filters: np.ndarray) -> np.ndarray:
    """Lay filters [height, width, filters] side by side in two rows, each scaled to its largest entry."""
    height, width, count = filters.shape
    columns = count // 2
    sheet = np.zeros((2 * (height + GAP) - GAP, columns * (width + GAP) - GAP))
    for index in range(count):
        top, left = (height + GAP) * (index // columns), (width + GAP) * (index % columns)
        sheet[top : top + height, left : left + width] = filters[..., index] / np.abs(filters[..., index]).max()
    return sheet


def pictures(found: Findings, run: int | None = None, panel: str = "pair") -> Panel:
    """Show a teacher and its two students, the first of whom both converged unless a run is named."""
    filters = next(iter(found.classes))
    groups = {group.convention: group for group in found.groups if group.filters == filters}
    run = candidates(found)[0] if run is None else run
    teacher = found.classes[filters].teachers.first[run]
    learned = {}
    for name, group in groups.items():
        oriented = turn(teacher) if name == "convolution" else teacher
        cosines, partners = students.match(oriented, group.students.first[run])
        learned[name] = np.sign(cosines) * group.students.first[run][..., partners]
    shown = (
        Picture(signed_png(row(teacher), 1), "teacher"),
        Picture(signed_png(row(learned["correlation"]), 1), "correlation"),
        Picture(signed_png(row(learned["convolution"]), 1), "convolution"),
        Picture(signed_png(row(turn(learned["convolution"])), 1), "… each turned"),
    )
    alt = (
        "The four 5 by 5 filters of a teacher, of its correlation student, where they are the same, of its "
        "convolution student, and of the latter each turned by 180 degrees, where they are the same again."
    )
    return strip(panel, alt, shown, title="teacher and students" if panel == "emblem" else panel)


def candidates(found: Findings) -> list[int]:
    """Return the runs with asymmetric teachers of which both students converged; the first run if there is none."""
    filters = next(iter(found.classes))
    passed = [group.converged() for group in found.groups if group.filters == filters]
    return [int(run) for run in np.flatnonzero(np.all(passed, 0))] or [0]


def scatter(convention: str, found: Findings) -> Panel:
    alt = (
        f"Match against held-out loss of {convention} students: converged ones have cosine 1 in the foretold "
        "orientation and small cosines in the other."
    )
    with chart(f"match, {convention}", alt, (4.4, 3.2)) as (axes, drawn):
        for group in (group for group in found.groups if group.convention == convention):
            chosen = ~group.symmetric
            loss = np.maximum(group.students.unexplained[chosen], FLOOR)
            marker = "o" if group.filters == students.SPARE else "s"
            for orientation, (color, label) in enumerate(((convention, "foretold"), ("muted", "other"))):
                face = COLORS[color] if orientation == students.FORETOLD else "none"
                style = {"marker": marker, "s": 22, "linewidths": 0.9, "facecolors": face, "edgecolors": COLORS[color]}
                values = group.after[orientation][chosen].min(-1)
                axes.scatter(loss, values, label=f"{label}, {group.filters} filters", **style)
        axes.axvline(students.CONVERGED, color=COLORS["control"], linewidth=1, linestyle="--")
        axes.text(students.CONVERGED / 1.3, 0.6, "converged  ", ha="right", fontsize=7.5, color=COLORS["control"])
        axes.set_xscale("log")
        log_axis(axes.xaxis)
        axes.set_xlim(FLOOR / 2, 0.4)
        axes.set_ylim(-0.03, 1.05)
        axes.set_xlabel("variance left unexplained, unseen photographs (share)")
        axes.set_ylabel("|cosine| of the worst filter")
        axes.set_title(f"{convention} students")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2, handletextpad=0.2)
    return drawn.panel


def intervals(found: Findings) -> Panel:
    rows = ("converge", "match as foretold", "match in the other", "symmetric teacher:\nmatch in both")
    alt = "Shares with intervals: most converge, all of those match as foretold, none in the other orientation."
    with chart("shares", alt, (5.6, 3.4)) as (axes, drawn):
        for index, group in enumerate(found.groups):
            measured = (
                statistics.share(group.converged()),
                statistics.share(group.matched(students.FORETOLD)),
                statistics.share(group.matched(students.OTHER)),
                statistics.share(group.matched_both()),
            )
            estimates, low, high = 100 * np.array(measured).T
            place = np.arange(len(rows))[::-1] + 0.16 * ((len(found.groups) - 1) / 2 - index)
            style = {"color": COLORS[group.convention], "capsize": 3, "linestyle": "none", "markersize": 5}
            style |= {"marker": "o" if group.filters == students.SPARE else "s"}
            axes.errorbar(
                estimates, place, xerr=np.array([estimates - low, high - estimates]), label=group.name, **style
            )
        axes.set_yticks(range(len(rows))[::-1], rows)
        axes.set_xlim(-3, 103)
        axes.set_xlabel("share of students (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    return drawn.panel


def courses(convention: str, found: Findings) -> Panel:
    alt = f"Loss of every {convention} student with filters to spare against the step: most fall by many orders."
    group = next(each for each in found.groups if each.convention == convention)
    losses = group.students.losses[:, ~group.symmetric]
    pieces = np.array_split(np.arange(len(losses)), min(POINTS, len(losses)))
    steps = [piece.mean() for piece in pieces]
    curves = np.array([np.exp(np.log(np.maximum(losses[piece], FLOOR)).mean(0)) for piece in pieces])
    with chart(f"course, {convention}", alt, (4.4, 2.9)) as (axes, drawn):
        for passed, color, label in ((True, convention, "converged"), (False, "muted", "did not")):
            lines = curves[:, group.converged() == passed]
            for index, line in enumerate(lines.T):
                axes.plot(steps, line, color=COLORS[color], linewidth=0.7, alpha=0.6, label="" if index else label)
        axes.set_yscale("log")
        log_axis(axes.yaxis)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (share of variance)")
        axes.set_title(f"{group.name}")
        axes.legend(loc="upper right")
    return drawn.panel


def draw(found: Findings) -> tuple[Figure, ...]:
    shown = candidates(found)[:3]
    return (
        Figure(
            "filters",
            "Teachers and students",
            "The four 5×5 filters of a teacher’s first layer, and those of its two students that were assigned to "
            "them, with the free sign mended (green positive, magenta negative; each scaled to its largest entry). "
            "The students never saw the filters, nor each other. The convolution student’s, each turned by 180° where "
            "it stands, are the teacher’s.",
            tuple(pictures(found, run, f"teacher {run + 1}") for run in shown),
        ),
        Figure(
            "match",
            "Who converges, matches, and in which orientation",
            "One student is one filled mark (orientation foretold: as it is for correlation, turned for convolution) "
            "and one hollow mark (the other orientation), both after the best assignment. The dashed line was drawn "
            "beforehand: to its left a student counts as converged. Left of it, the filled marks are at 1 and the "
            "hollow ones are not.",
            tuple(scatter(convention, found) for convention in CONVENTIONS),
            width=440,
        ),
        Figure(
            "shares",
            "How many",
            "Shares with 95% intervals of Wilson: of all students, those that converge; of those that converge, those "
            f"all {FILTERS} of whose filters match with |cosine| above {students.MATCHED}.",
            (intervals(found),),
            width=500,
        ),
        Figure(
            "courses",
            "Learning, student by student",
            "Loss on the lessons, as the share of the variance of the teacher’s answers; each line is one student, "
            "averaged over some steps (geometric mean).",
            tuple(courses(convention, found) for convention in CONVENTIONS),
            width=440,
        ),
    )


def table(found: Findings) -> Table:
    rows = []
    for group in found.groups:
        passed = statistics.share(group.converged())
        rows.append(
            (
                group.name,
                f"{group.converged().sum()} of {group.converged().size}",
                f"{100 * passed.low:.0f} to {100 * passed.high:.0f}%",
                *(_cosine(group, group.after[index]) for index in (students.FORETOLD, students.OTHER)),
                *(f"{each[~group.symmetric].mean():.2f}" for each in group.before[:1]),
                _cosine(group, group.second) if group.second is not None else "—",
            )
        )
    columns = ("students", "converged", "95% interval", "as foretold", "other", "before", "second layer")
    caption = (
        "Mean cosines over all filters of the students with asymmetric teachers, with 95% intervals of Student over "
        "those that converged; “before” is before training, in the orientation foretold, over all."
    )
    return Table("Group by group", caption, columns, tuple(rows))


def _cosine(group: Group, values: np.ndarray) -> str:
    interval = students.mean(group.graduates(values).mean(-1))
    return f"{interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})"
