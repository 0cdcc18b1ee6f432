"""The drawings of `experiments.ensembles`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments import ensembles
from experiments.core import Figure, Panel, Table
from experiments.ensembles_networks import ASYMMETRIC, CONDITIONS, CONVENTIONS, NATURAL
from experiments.figures import COLORS, Picture, chart, gray_png, scientific, signed_png, strip

if TYPE_CHECKING:
    from experiments.ensembles import Findings

STYLES = (("flipped", "convolution", "o"), ("unflipped", "control", "s"))  # the first of `ensembles.COMPARISONS`


def accuracies(found: Findings, task: int) -> Panel:
    name, values = found.tasks[task].name, 100 * found.ensembles[task].accuracy[NATURAL]
    alt = f"Test accuracy of every network on {name}, by convention: two clouds at the same height."
    with chart(f"accuracies-{name}", alt, (3.4, 3.0)) as (axes, drawn):
        for index, (convention, sample) in enumerate(zip(CONVENTIONS, values, strict=True)):
            places = index + np.linspace(-0.3, 0.3, len(sample))  # by number, which means nothing
            axes.plot(places, sample, ".", color=COLORS[convention], alpha=0.5, markersize=5)
            axes.plot([index - 0.35, index + 0.35], [sample.mean()] * 2, color=COLORS["ink"])
        axes.set_xticks(range(len(CONVENTIONS)), CONVENTIONS)
        axes.set_title(name)
        axes.set_ylabel("test accuracy (%)")
    return drawn.panel


def equivalence(found: Findings) -> Panel:
    alt = "Difference of mean accuracies with its interval, well within the margins on both sides of zero."
    with chart("equivalence", alt, (3.6, 3.0)) as (axes, drawn):
        rows = np.arange(len(found.tasks))[::-1]
        for row, intervals in zip(rows, found.differences, strict=True):
            low, high = intervals[NATURAL].low, intervals[NATURAL].high
            axes.plot([low, high], [row, row], color=COLORS["ink"])
            axes.plot(intervals[NATURAL].estimate, row, "o", color=COLORS["ink"])
        for margin in (-found.margin, found.margin):
            axes.axvline(margin, color=COLORS["control"], linestyle="--")
        axes.axvline(0, color=COLORS["muted"], linewidth=0.8)
        axes.set_yticks(rows, [task.name for task in found.tasks])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_title("correlation less convolution")
        axes.set_xlabel("difference of mean accuracies (points)")
    return drawn.panel


def samples(found: Findings, task: int) -> Panel:
    """Show test images of two classes, as they are and asymmetric, and the latter turned."""
    name, images = found.tasks[task].name, found.tasks[task].test_images
    places = [int(np.argmax(found.tasks[task].test_labels == label)) for label in (0, 2)]
    pictures = []
    for place in places:
        upright = images[ASYMMETRIC][place, ..., 0]
        for label, image in (
            (CONDITIONS[NATURAL], images[NATURAL][place, ..., 0]),
            (CONDITIONS[ASYMMETRIC], upright),
            ("… turned", upright[::-1, ::-1]),
        ):
            pictures.append(Picture(gray_png(image, image.min(), image.max()), label))
    alt = f"Two of the {name}, as they are, with an asymmetry built in, and the latter turned by 180 degrees."
    return strip(f"samples-{name}", alt, pictures, title=name, columns=6, side=64)


def filters(found: Findings, task: int, condition: int, panel: str = "") -> Panel:
    """Show the first layers of one network of each convention, and the latter turned."""
    name, layers = found.tasks[task].name, found.ensembles[task].filters[condition, :, 0]
    limit = np.abs(layers).max()
    rows = ((CONVENTIONS[0], layers[0]), (CONVENTIONS[1], layers[1]), ("… each turned", layers[1][:, ::-1, ::-1]))
    pictures = [
        Picture(signed_png(kernel, limit), label if index == 0 else "")
        for label, layer in rows
        for index, kernel in enumerate(layer)
    ]
    alt = (
        f"The eight 3 by 3 filters of one correlation and of one convolution network on {name}, the latter also turned."
    )
    title = f"{name}, {CONDITIONS[condition]}"
    return strip(panel or f"filters-{name}-{condition}", alt, pictures, title=title, side=48, columns=8)


def emblem(found: Findings) -> Panel:
    return permutations(found, 0, ASYMMETRIC, panel="emblem")


def permutations(found: Findings, task: int, condition: int, panel: str = "") -> Panel:
    name, contrasts = found.tasks[task].name, found.contrasts[task][condition]
    alt = (
        f"{name}, {CONDITIONS[condition]}: histogram of energy distances after permuting networks, with lines at the "
        "distances found with and without the flip, and at the margin."
    )
    with chart(panel or f"permutations-{name}-{condition}", alt, (3.4, 2.9)) as (axes, drawn):
        axes.hist(contrasts[ensembles.FLIPPED].permuted, 60, color=COLORS["muted"], alpha=0.45, density=True)
        for index, (label, color, _) in enumerate(STYLES):
            axes.axvline(contrasts[index].distance, color=COLORS[color], label=label)
        axes.axvline(contrasts[ensembles.FLIPPED].margin, color=COLORS["ink"], linestyle="--", label="margin")
        axes.set_title(f"{name}, {CONDITIONS[condition]}", pad=20)
        axes.set_xlabel("energy distance of the filters")
        axes.set_ylabel("density of permutations")
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=3, fontsize=7)
    return drawn.panel


def effects(found: Findings) -> Panel:
    rows = [(task, condition) for task in range(len(found.tasks)) for condition in range(len(CONDITIONS))]
    alt = "Effect sizes with intervals: those of flipped filters reach zero; unflipped ones, if asymmetric, do not."
    with chart("effects", alt, (6.0, 1.2 + 0.42 * len(rows))) as (axes, drawn):
        for index, (label, color, marker) in enumerate(STYLES):
            intervals = [found.contrasts[task][condition][index].effect for task, condition in rows]
            places = np.arange(len(rows))[::-1] + 0.15 * (1 - 2 * index)
            axes.hlines(places, [i.low for i in intervals], [i.high for i in intervals], color=COLORS[color])
            axes.plot([i.estimate for i in intervals], places, marker, color=COLORS[color], label=label)
        labels = [f"{found.tasks[task].name}, {CONDITIONS[condition]}" for task, condition in rows]
        axes.set_yticks(np.arange(len(rows))[::-1], labels)
        axes.set_xlim(left=0)
        axes.set_xlabel("distance of the laws (root of the coefficient of inhomogeneity)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return drawn.panel


def draw(found: Findings) -> tuple[Figure, ...]:
    tasks, conditions = range(len(found.tasks)), range(len(CONDITIONS))
    runs = found.ensembles[0].accuracy.shape[-1]
    level = 100 - 200 * ensembles.LEVEL
    return (
        Figure(
            "accuracies",
            "Equally accurate",
            f"Test accuracy of {runs} networks of each convention, a point each, with the means. Right, the difference "
            f"of the means with its {level:.0f}% interval: within the margins (dashed), both one-sided tests at "
            f"{ensembles.LEVEL} reject a difference as large as the margin.",
            (*(accuracies(found, task) for task in tasks), equivalence(found)),
            width=330,
        ),
        Figure(
            "samples",
            "What is learned from",
            "Images of two classes. Asymmetric digits are lit from the upper left; asymmetric brick (first) "
            "bears a mark, gravel (second) none. Turned by 180°, neither is an image of the same kind.",
            tuple(samples(found, task) for task in tasks),
            width=440,
        ),
        Figure(
            "filters",
            "One network of each convention",
            "First-layer filters of the first network of either convention, and those of convolution turned by 180° "
            "(green positive, magenta negative). The networks are independent, so that no filter has a counterpart; "
            "what can be compared is the law they are drawn from, over all networks.",
            tuple(filters(found, task, condition) for task in tasks for condition in (NATURAL, ASYMMETRIC)),
            width=440,
        ),
        Figure(
            "permutations",
            "With the flip, no further apart than chance makes them",
            "Grey, the energy distance between two groups of networks when networks are dealt to the groups at random. "
            "The lines are the distance between correlation and convolution networks, with the filters of the latter "
            "flipped and not, and the margin, the 99% quantile between random halves of the correlation networks.",
            tuple(permutations(found, task, condition) for task in tasks for condition in conditions),
            width=330,
        ),
        Figure(
            "effects",
            "How far apart the laws are",
            "Root of the coefficient of inhomogeneity (0: equal laws; 1: laws without spread), estimate and "
            "conservative 95% interval over networks. The upper ends say how large a difference is not excluded.",
            (effects(found),),
            width=620,
        ),
    )


def tables(found: Findings) -> tuple[Table, ...]:
    rows, accuracy = [], []
    for task, row, adjusted in zip(found.tasks, found.contrasts, found.adjusted, strict=True):
        for condition, contrasts, corrected in zip(CONDITIONS, row, adjusted, strict=True):
            for comparison, each, p_value in zip(ensembles.COMPARISONS, contrasts, corrected, strict=True):
                effect = f"{each.effect.estimate:.3f} ({each.effect.low:.3f} to {each.effect.high:.3f})"
                numbers = (each.distance, each.margin, each.p_value, p_value)
                rows.append((f"{task.name}, {condition}", comparison, *map(scientific, numbers), effect))
    for task, each, intervals in zip(found.tasks, found.ensembles, found.differences, strict=True):
        for condition, values, interval in zip(CONDITIONS, 100 * each.accuracy, intervals, strict=True):
            means = [f"{sample.mean():.2f} ± {sample.std(ddof=1):.2f}" for sample in values]
            difference = f"{interval.estimate:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"
            accuracy.append((f"{task.name}, {condition}", *means, difference.replace("-", "−")))
    exchanged = "; ".join(
        f"{task.name} {loss.estimate:.1f}" for task, loss in zip(found.tasks, found.exchanged, strict=True)
    )
    return (
        Table(
            "Filters",
            "Correlation networks against convolution networks with flipped and with unflipped filters, and against "
            "untrained ones. The effect is the root of the coefficient of inhomogeneity with its 95% interval.",
            ("data", "comparison", "energy distance", "margin", "p", "p, adjusted", "effect"),
            tuple(rows),
        ),
        Table(
            "Accuracy",
            "Test accuracy in percent, mean and standard deviation over networks, and the difference with its "
            f"{100 - 200 * ensembles.LEVEL:.0f}% interval. Points lost by using the filters of convolution for "
            f"correlation: {exchanged}.",
            ("data", *CONVENTIONS, "difference"),
            tuple(accuracy),
        ),
    )
