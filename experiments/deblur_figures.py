"""The drawings of `experiments.deblur`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments import deblur
from experiments import deblur_methods as methods
from experiments.core import Figure, Panel, Table
from experiments.deblur_methods import CONVENTIONS, RICHARDSON_LUCY, WIENER
from experiments.figures import COLORS, Picture, chart, gray_png, scientific, signed_png, strip
from experiments.kernels import flip

if TYPE_CHECKING:
    from experiments.deblur import Findings

CROP = 64
SHOWN = {"astronaut": (14, 36), "coins": (8, 20)}  # first row and column of what is shown of a test picture
ROWS = (("convolution", "own"), ("correlation", "own"), ("convolution", "unflipped"))


def gallery(found: Findings) -> Figure:
    """Show a piece of two test photographs, restored by the first pair of each method."""
    return Figure(
        "restored",
        "Restored photographs",
        f"A piece of {CROP}×{CROP} pixels of two test photographs. The restorers of the first row learned and work by "
        "convolution, those of the second by correlation, from starts of their own. In the third row those of the "
        "first are used by correlation, their kernels as they stand: they sharpen in the wrong direction. Beneath, the "
        "PSNR of the whole test picture.",
        tuple(_restored(found, name, corner) for name, corner in SHOWN.items()),
        width=520,
    )


def _restored(found: Findings, name: str, corner: tuple[int, int]) -> Panel:
    index = deblur.TEST.index(name)
    top, left = corner

    def paint(pictures: np.ndarray, label: str, note: str = "") -> Picture:
        crop = pictures[index, top : top + CROP, left : left + CROP]
        return Picture(gray_png(crop, 0, 1), label, note, pixelated=False)

    firsts = (
        paint(found.test.sharp, "photograph"),
        paint(found.test.seen, "blurred, with noise", f"{found.seen()[index]:.2f} dB"),
        Picture(signed_png(found.blur, found.blur.max()), "what blurred it", "enlarged"),
    )
    pictures = []
    for first, (convention, use) in zip(firsts, ROWS, strict=True):
        pictures.append(first)
        for method in found.learned:
            value = found.psnr(method, convention, use)[0, index]
            note = f"{convention if use == 'own' else 'not flipped'}, {value:.2f} dB"
            pictures.append(paint(found.restored[method][convention][use][0], method, note))
    alt = (
        f"{name}: a piece of the photograph, the same blurred, and restored by {', '.join(found.learned)}: alike by "
        "convolution and by correlation, and with ghosts where the kernels were not flipped."
    )
    return strip(name, alt, pictures, title=name.capitalize(), side=126, columns=1 + len(found.learned))


def filters(found: Findings) -> Figure:
    """Show what the first pairs have learned."""
    panels = []
    symmetric = (found.blur + flip(found.blur)) / 2
    for name, blur, learned, solution in (
        ("Wiener filters, comet", found.blur, found.learned[WIENER.name], found.solution),
        ("Wiener filters, symmetric blur", symmetric, found.symmetric_learned, found.symmetric_solution),
    ):
        first = {convention: each[0] for convention, each in deblur.filters_of(learned).items()}
        limit = np.abs(solution.filter).max() / 2
        gap = float(deblur.distance(first["convolution"], flip(first["correlation"])))
        pictures = (
            Picture(signed_png(blur, blur.max()), "blur"),
            Picture(signed_png(solution.filter, limit), "closed form", "as correlation"),
            Picture(signed_png(first["correlation"], limit), "by correlation"),
            Picture(signed_png(first["convolution"], limit), "by convolution"),
            Picture(signed_png(flip(first["convolution"]), limit), "… flipped", f"off by {scientific(gap)}"),
        )
        alt = f"{name}: the filter of least squares, that by correlation, which equals it, and that by convolution."
        panels.append(strip(name, alt, pictures, title=name, side=105))
    by = {c: deblur.kernels_of(params)[0] for c, params in found.learned[RICHARDSON_LUCY.name].items()}
    limit = found.blur.max()
    gap = float(deblur.distance(by["convolution"], flip(by["correlation"])))
    pictures = (
        Picture(signed_png(found.blur, limit), "blur"),
        Picture(signed_png(by["convolution"], limit), "by convolution"),
        Picture(signed_png(flip(found.blur), limit), "blur, flipped"),
        Picture(signed_png(by["correlation"], limit), "by correlation"),
        Picture(signed_png(flip(by["correlation"]), limit), "… flipped", f"off by {scientific(gap)}"),
    )
    alt = "The blur and the kernel that Richardson-Lucy took for it by convolution; both flipped, by correlation."
    panels.append(strip("kernels", alt, pictures, title="Kernels of Richardson–Lucy", side=105))
    return Figure(
        "filters",
        "What was learned",
        "By the first pair of each (green positive, magenta negative; of a Wiener filter, half its largest value has "
        "the full colour). Beneath the flipped ones, their relative distance from those of the other convention. With "
        "the symmetric blur, the Wiener filter is nearly its own flip. The kernel of Richardson–Lucy stands for the "
        "blur, roughly, so that it is convolution that learns it upright.",
        tuple(panels),
        width=520,
    )


def equivalence(found: Findings) -> Figure:
    margin = deblur.EQUIVALENT
    differences = {name: found.difference(name) for name in found.learned} | {deblur.CONTROL: deblur.control(found)}
    alt = (
        "Difference of PSNR with 90% intervals: those between the conventions lie within 0.1 dB of 0, that between two "
        "methods does not."
    )
    with chart("equivalence", alt, (6.2, 0.75 + 0.85 * len(differences))) as (axes, drawn):
        axes.axvspan(-margin, margin, color=COLORS["line"], alpha=0.6, linewidth=0)
        axes.axvline(0, color=COLORS["muted"], linewidth=0.8)
        marks = "os^Dv<>"
        for row, (name, values) in enumerate(reversed(differences.items())):
            color = COLORS["control" if name == deblur.CONTROL else "convolution"]
            interval = deblur.compare(values)
            reach = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
            axes.errorbar(interval.estimate, row + 0.22, xerr=reach, color=color, marker="o", capsize=4)
            axes.plot(values.mean(-1), np.full(len(values), row + 0.08), "|", color=color, alpha=0.6, markersize=5)
            for index, photograph in enumerate(deblur.TEST):
                part = deblur.compare(values[:, index : index + 1])
                height = row - 0.1 * (index + 1) + 0.02
                axes.plot([part.low, part.high], [height, height], color=COLORS["muted"], linewidth=1)
                label = photograph if row == 0 else None
                axes.plot(part.estimate, height, marks[index], color=COLORS["muted"], markersize=3.5, label=label)
        axes.set_yticks(range(len(differences)), list(reversed(differences)))
        axes.set_ylim(-0.55, len(differences) - 0.45)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference of PSNR (dB)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(deblur.TEST))
    return Figure(
        "equivalence",
        "PSNR by convolution less that by correlation",
        "Large dots: the mean over pairs and photographs, with the 90% interval that two one-sided tests compare with "
        f"the margin of ±{margin} dB (shaded). Strokes beneath: each pair’s mean over the photographs. Grey: the same "
        "interval for each photograph. The last row, the control, compares two methods instead of the conventions.",
        (drawn.panel,),
        width=640,
    )


def draw(found: Findings) -> tuple[Figure, ...]:
    return gallery(found), filters(found), equivalence(found)


def table(found: Findings) -> Table:
    """Return the mean PSNR of everything, photograph by photograph."""
    solution = methods.psnr(found.closed_form, found.test.sharp)
    rows: list[tuple[str, np.ndarray]] = [
        ("blurred, with noise", found.seen()),
        ("least squares, closed form", solution),
    ]
    for name in found.learned:
        rows += [(f"{name}, {convention}", found.psnr(name, convention).mean(0)) for convention in CONVENTIONS]
        rows.append((f"{name}, not flipped", found.psnr(name, "convolution", "unflipped").mean(0)))
    return Table(
        "PSNR of each photograph",
        "In dB, mean over the runs. “Not flipped”: learned by convolution, used by correlation as it stands.",
        ("restored by", *deblur.TEST, "mean"),
        tuple((name, *(f"{value:.2f}" for value in (*values, values.mean()))) for name, values in rows),
    )
