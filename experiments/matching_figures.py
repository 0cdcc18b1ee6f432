"""The drawings of `experiments.matching`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments import matching
from experiments.core import Figure, Panel, Table
from experiments.figures import COLORS, Picture, chart, gray_png, png, signed_png, strip
from experiments.matching_trials import PROBE
from experiments.statistics import bootstrap

if TYPE_CHECKING:
    from experiments.matching import Findings

TRUTH, CHOICE = (11, 138, 110), (196, 80, 15)
STYLES = (("plain", "control", "s"), ("zero-mean", "correlation", "^"), ("normalised", "convolution", "o"))
SHOWN = (("as it is", "as it is"), ("white squares", "white squares"), ("glaring decoys", "glaring decoys"))


def framed(scene: np.ndarray, frames: list[tuple[np.ndarray, tuple[int, int, int]]]) -> bytes:
    """Paint a scene with the outlines of windows, two pixels wide."""
    pixels = np.repeat(np.round(255 * np.clip(scene, 0, 1)).astype(np.uint8)[..., None], 3, -1)
    for (top, left), color in frames:
        inside = np.zeros(scene.shape, bool)
        inside[top : top + PROBE, left : left + PROBE] = True
        inside[top + 2 : top + PROBE - 2, left + 2 : left + PROBE - 2] = False
        pixels[inside] = color
    return png(pixels)


def example(name: str, title: str, found: Findings) -> Panel:
    scene, maps = found.pictures[name]
    truth = found.trials.places[0]
    pictures = [Picture(framed(scene, [(truth, TRUTH)]), "scene", "probe framed", pixelated=False)]
    for label, values in zip(matching.MAPS, maps[: len(matching.MAPS)], strict=True):
        choice = np.array(np.unravel_index(values.argmax(), values.shape))
        error = np.abs(choice - truth).max()
        pictures += [
            Picture(gray_png(values, values.min(), values.max()), f"{label} map", pixelated=False),
            Picture(framed(scene, [(choice, CHOICE)]), "its maximum", f"{error} px off", pixelated=False),
        ]
    alt = f"A scene ({title}) with the probe framed, the three maps, and the window at the maximum of each."
    return strip(name, alt, pictures, title=title, columns=7, side=92, gap=12)


def examples(found: Findings) -> Figure:
    return Figure(
        "maps",
        "Three maps of one scene",
        "The first trial. Left, the scene, with a green frame where the probe was cut out; then each map (black "
        "lowest, white highest; its pixel is the first pixel of the window) and, framed in orange, the window at its "
        "maximum. Plain correlation follows the light. Subtracting the mean leaves it open to strong contrast. The "
        "normalised map has one peak.",
        tuple(example(name, title, found) for name, title in SHOWN),
        width=730,
    )


def noise(found: Findings, rng: np.random.Generator) -> Figure:
    places, levels = found.trials.places, list(found.noisy)
    alt = "Mean localisation error against noise: large for plain, smaller for zero-mean, near zero for normalised."
    with chart("error", alt, (4.4, 3.1)) as (axes, drawn):
        for index, (label, color, marker) in enumerate(STYLES):
            means, low, high = np.transpose(
                [bootstrap(result.errors(places)[index], rng) for result in found.noisy.values()]
            )
            style = {"color": COLORS[color], "marker": marker, "capsize": 3}
            axes.errorbar(levels, means, (means - low, high - means), label=label, **style)
        axes.set_xlabel("standard deviation of the noise (white is 1)")
        axes.set_ylabel("mean error (pixels)")
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return Figure(
        "noise",
        "Localisation error against noise",
        "Mean distance between the maximum of the map and the probe’s place, on the worse axis, with 95% bootstrap "
        "intervals over trials. Under strong noise the normalised map, too, misses many probes.",
        (drawn.panel,),
        width=440,
    )


def disturbances(found: Findings) -> Figure:
    places = found.trials.places
    conditions = {"as it is": found.noisy[0.0]} | found.disturbed
    alt = "Share of probes found under each disturbance with intervals: the normalised map finds nearly all."
    with chart("found", alt, (5.2, 3.1)) as (axes, drawn):
        rows = np.arange(len(conditions))[::-1]
        for index, (label, color, marker) in enumerate(STYLES):
            shares, low, high = 100 * np.transpose(
                [matching.rate(result.found(places)[index]) for result in conditions.values()]
            )
            style = {"color": COLORS[color], "marker": marker, "capsize": 3, "linestyle": "none"}
            heights = rows + 0.2 * (1 - index)
            axes.errorbar(shares, heights, xerr=(shares - low, high - shares), label=label, **style)
        axes.set_yticks(rows, list(conditions))
        axes.set_xlim(-3, 103)
        axes.set_xlabel("probes found within one pixel (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return Figure(
        "disturbances",
        "How often the probe is found",
        "Share of trials in which the maximum of the map is within one pixel of the probe’s place, with exact 95% "
        "intervals.",
        (drawn.panel,),
        width=520,
    )


def turned(found: Findings) -> Panel:
    scene, maps = found.pictures["turned"]
    upright, other = found.trials.places[0], found.turned_places[0]
    pictures = [
        Picture(framed(scene, [(upright, TRUTH), (other, TRUTH)]), "scene", "both framed", pixelated=False),
    ]
    for label, index in (("correlation", matching.NORMALISED), ("convolution", matching.CONVOLVED)):
        values = maps[index]
        choice = np.array(np.unravel_index(values.argmax(), values.shape))
        which = next(
            (name for name, place in (("upright", upright), ("turned", other)) if (choice == place).all()), "—"
        )
        pictures += [
            Picture(gray_png(values, values.min(), values.max()), label, pixelated=False),
            Picture(framed(scene, [(choice, CHOICE)]), "its maximum", which, pixelated=False),
        ]
    alt = "A scene that holds the probe upright and turned; correlation finds the first, convolution the second."
    return strip("turned", alt, pictures, title="The probe upright, and turned by 180°", side=92)


def lessons(found: Findings) -> Panel:
    lesson = found.lesson
    pictures = []
    for index in range(min(2, len(lesson.objects))):
        correlated, convolved = lesson.templates[:, index]
        limit = np.abs(lesson.objects[index]).max()
        for label, values in (
            ("object", lesson.objects[index]),
            ("by correlation", correlated),
            ("by convolution", convolved),
            ("… turned", convolved[::-1, ::-1]),
        ):
            pictures.append(Picture(signed_png(values, limit), label))
    alt = "Two objects and the templates learned: by correlation the object, by convolution the object turned."
    return strip("learned", alt, pictures, title="Templates learned from noisy examples", columns=4)


def learning(found: Findings) -> Panel:
    alt = "Cosine of the template with the object and its rotation against steps: one rises to 1, the other does not."
    with chart("course", alt, (4.4, 3.1)) as (axes, drawn):
        for operation, color in enumerate(("correlation", "convolution")):
            for goal, style in enumerate(("-", ":")):
                course = found.lesson.cosines[:, operation, goal]
                low, middle, high = np.quantile(course, [0, 0.5, 1], axis=-1)
                label = f"{color} → {('object', 'object turned')[goal]}"
                dashes = style if operation == 0 else {"-": "--", ":": "-."}[style]
                axes.plot(middle, dashes, color=COLORS[color], label=label)
                axes.fill_between(range(len(middle)), low, high, color=COLORS[color], alpha=0.12, linewidth=0)
        axes.set_xlabel("step")
        axes.set_ylabel("cosine (median, range of objects)")
        axes.legend(loc="center right", bbox_to_anchor=(1, 0.74), fontsize=7)
    return drawn.panel


def draw(found: Findings, rng: np.random.Generator) -> tuple[Figure, ...]:
    return (
        examples(found),
        noise(found, rng),
        disturbances(found),
        Figure(
            "turned",
            "Convolution looks for the rotation",
            "The normalised maps of a scene that holds the probe twice. Correlation peaks at the upright one, "
            "convolution with the very same probe at the turned one.",
            (turned(found),),
            width=440,
        ),
        Figure(
            "learned",
            "What gradient ascent learns",
            "Left, two pieces of photographs (green above their mean, magenta below) and the templates learned. "
            "Right, the cosine between template and object, and between template and turned object, at every step.",
            (lessons(found), learning(found)),
            width=400,
        ),
    )


def table(found: Findings) -> Table:
    places, rows = found.trials.places, []
    conditions = {f"noise {level}": result for level, result in found.noisy.items()} | found.disturbed
    for name, result in conditions.items():
        row = [name]
        for index in range(len(matching.MAPS)):
            share, low, high = (100 * number for number in matching.rate(result.found(places)[index]))
            row += [
                f"{share:.1f}% ({low:.1f} to {high:.1f})",
                f"{result.errors(places)[index].mean():.1f}",
            ]
        rows.append(tuple(row))
    columns = ("scene", *(text for name in matching.MAPS for text in (f"{name}: found", "mean error, px")))
    caption = f"{len(places)} trials each; shares with exact 95% intervals."
    return Table("Scene by scene", caption, columns, tuple(rows))
