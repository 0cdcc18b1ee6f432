"""The drawings of `experiments.fourier`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import fourier_learning as learning
from experiments import fourier_precision as precision
from experiments.core import Figure, Panel, Table
from experiments.figures import COLORS, Picture, chart, legend_above, log_axis, scientific, signed_png, strip
from experiments.kernels import collection, flip

if TYPE_CHECKING:
    from experiments.fourier import Findings
    from experiments.fourier_timing import Timing

SHOWN = "letter F"  # the kernel whose spectra are drawn
BANK = "three photographs"  # the problem whose filters are drawn
RANGE = 20  # the dynamic range of the course of errors, as a power of two
# One look for each algorithm, in all charts.
LOOKS: dict[str, dict[str, Any]] = {
    "xla": {"color": COLORS["ink"], "linestyle": "-", "marker": "s"},
    "shift": {"color": COLORS["correlation"], "linestyle": "-", "marker": "^"},
    "toeplitz": {"color": COLORS["control"], "linestyle": "-", "marker": "v"},
    "fft": {"color": COLORS["convolution"], "linestyle": "--", "marker": "o"},
    "overlap": {"color": COLORS["plain"], "linestyle": "--", "marker": "D"},
}
OTHER = {"color": COLORS["muted"], "linestyle": ":", "marker": "x"}


def draw(found: Findings) -> tuple[Figure, ...]:
    return (spectra(), filters(found), errors(found), times(found))


def spectra() -> Figure:
    kernel = collection(np.random.default_rng(0), random=0).asymmetric[SHOWN]
    panels = []
    for name, shown in (("as it is", kernel), ("flipped", flip(kernel))):
        middle = len(shown) // 2
        # The origin is the kernel's middle, or the phase would show little but its distance from a corner.
        grid = np.fft.fftshift(np.fft.fft2(np.roll(np.pad(shown, (0, 24)), (-middle, -middle), (0, 1))))
        phase = np.where(np.abs(grid) > 1e-9, np.angle(grid), 0)
        pictures = (
            Picture(signed_png(shown, np.abs(shown).max()), "kernel"),
            Picture(signed_png(np.abs(grid), np.abs(grid).max()), "magnitude"),
            Picture(signed_png(phase, np.pi), "phase"),
        )
        alt = f"The letter F, {name}, the magnitude of its spectrum and the phase."
        panels.append(strip(name, alt, pictures, title=f"The kernel {name}", side=120))
    return Figure(
        "spectra",
        "What the flip does to a spectrum",
        "The magnitude does not know the flip, for real kernels; the phase changes its sign (green positive, magenta "
        "negative, zero frequency in the middle). A symmetric kernel has a phase of 0 or π, which that does not alter.",
        tuple(panels),
        width=340,
    )


def filters(found: Findings) -> Figure:
    bank = found.problems[BANK].filters
    limit = np.abs(bank[0, 0]).max()
    lessons = {method: lesson for (name, method), lesson in found.lessons.items() if name == BANK}
    panels: list[Panel] = []
    for row, convention in enumerate(learning.CONVENTIONS):
        pictures = [Picture(signed_png(bank[0, 0], limit), "true filter")]
        for method, lesson in lessons.items():
            learned = lesson.filters[row, 0, 0]
            shown = learned if convention == "convolution" else flip(learned)
            pictures.append(Picture(signed_png(shown, limit), method, f"error {scientific(lesson.errors[-1, row, 0])}"))
        alt = f"A 5 by 5 filter and those learned by {convention} through {', '.join(lessons)}."
        panels.append(strip(convention, alt, pictures, title=f"By {convention}"))
    return Figure(
        "filters",
        "One filter, learned through several algorithms",
        f"The first of {bank.shape[0] * bank.shape[1]} filters, learned from three whitened photographs at once. "
        "Whatever computes the layer, convolution learns the filter as it is and correlation learns it turned.",
        tuple(panels),
        width=430,
    )


def growth(found: Findings, dtype: str, panel: str | None = None) -> Panel:
    """Draw the relative error of quiet results against the dynamic range."""
    alt = (
        f"Relative error of quiet results against the dynamic range in {dtype}, both logarithmic: flat for sums, a "
        "line of slope 1 for transforms, which reaches 1 near the reciprocal of the unit roundoff."
    )
    with chart(panel or f"growth {dtype}", alt, (4.2, 3.1)) as (axes, drawn):
        for (each, method), result in found.errors.items():
            if each == dtype and method != "direct":
                look = LOOKS.get(method, OTHER)
                axes.plot(2.0**result.exponents, result.quiet.max(-1), label=method, markersize=3, **look)
        axes.axhline(1, color=COLORS["muted"], linewidth=0.8)
        axes.axvline(2.0 ** precision.digits(dtype), color=COLORS["muted"], linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        log_axis(axes.xaxis)
        log_axis(axes.yaxis)
        axes.set_title(dtype)
        axes.set_xlabel("dynamic range (loud over quiet)")
        axes.set_ylabel("relative error, quiet results")
        legend_above(axes, columns=5)
    return drawn.panel


def course(found: Findings) -> Panel:
    alt = (
        "Errors along the signal: those of a sum are alike everywhere, those of a whole transform are large in all of "
        "the quiet part, those of overlap-save only next to the loud part."
    )
    width = 32
    with chart("course", alt, (4.2, 3.1)) as (axes, drawn):
        for method in ("fft", "overlap", "direct"):
            result = found.errors["float32", method]
            (index,) = np.flatnonzero(result.exponents == RANGE)
            values = result.course[index, 0]
            values = values[: len(values) // width * width].reshape(-1, width)
            look: dict[str, Any] = LOOKS.get(method, LOOKS["shift"]) | {"marker": ""}
            axes.plot(width * (np.arange(len(values)) + 0.5), np.sqrt(np.mean(values**2, -1)), label=method, **look)
        axes.axvline(precision.LOUD, color=COLORS["muted"], linewidth=0.8)
        axes.set_yscale("log")
        log_axis(axes.yaxis)
        axes.set_title("along the signal, float32")
        axes.set_xlabel("result (sample)")
        axes.set_ylabel("relative error")
        legend_above(axes, columns=3)
    return drawn.panel


def errors(found: Findings) -> Figure:
    return Figure(
        "errors",
        "What a transform loses",
        "First two: the worse of both signals, for each algorithm; vertical line: the reciprocal of the unit "
        "roundoff; horizontal line: the error is as large as the result. Third: root mean squares over 32 results of "
        f"the noise, relative to the results of their part; samples left of the line are {2**RANGE:,} times as loud as "
        "the others.",
        (*(growth(found, dtype) for dtype in precision.DTYPES), course(found)),
        width=440,
    )


def times(found: Findings) -> Figure:
    panels = []
    for name, sweep in found.timings.items():
        alt = (
            f"Time against the width of the filter in {name}: sums grow with it, transforms hardly; rings mark the "
            "planner’s choices, at or near the lowest curve."
        )
        with chart(f"times {name}", alt, (4.6, 3.3)) as (axes, drawn):
            for method in dict.fromkeys(method for each in sweep for method in each.seconds):
                points = [(each.taps, each.seconds[method]) for each in sweep if method in each.seconds]
                axes.plot(*zip(*points, strict=True), label=method, markersize=3, **LOOKS.get(method, OTHER))
            chosen = [each.seconds[each.chosen] for each in sweep]
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": COLORS["ink"], "linewidths": 1.2, "zorder": 4}
            ticks = [each.taps for each in sweep]
            axes.scatter(ticks, chosen, 60, label="planner’s choice", **ring)
            axes.set_xscale("log")
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.set_xticks(ticks[::2], [str(width) for width in ticks[::2]])
            axes.minorticks_off()
            axes.set_title(name)
            axes.set_xlabel("width of the filter (samples)")
            axes.set_ylabel("time (s)")
            axes.legend(loc="upper left", fontsize=7, ncols=2)
        panels.append(drawn.panel)
    return Figure(
        "times",
        "Time against the size of the filter",
        "Shortest of several calls on the device of this run, float32. The tables name the crossovers.",
        tuple(panels),
        width=440,
    )


def tables(found: Findings) -> tuple[Table, ...]:
    sweeps = [timing_table(name, sweep) for name, sweep in found.timings.items()]
    return (theorem_table(found), learning_table(found), crossover_table(found), *sweeps)


def theorem_table(found: Findings) -> Table:
    dtypes = {str(case.x.dtype): None for case in found.cases}
    chosen = {dtype: np.array([case.x.dtype == dtype for case in found.cases]) for dtype in dtypes}
    rows = [
        (law, *(scientific(values[part].max()) for part in chosen.values())) for law, values in found.residuals.items()
    ]
    return Table(
        "The theorem, form by form",
        "The largest relative residual. The first five hold; the sixth, the conjugate of the spectrum for a "
        "correlation that does not conjugate, holds for real filters; the others are wrong on purpose.",
        ("form", *dtypes),
        tuple(rows),
    )


def learning_table(found: Findings) -> Table:
    rows = [
        (method, name, *lesson.runs_as, *map(scientific, lesson.errors[-1].max(-1)))
        for (name, method), lesson in sorted(found.lessons.items(), key=lambda item: item[0][1])
    ]
    return Table(
        "Algorithm by algorithm",
        "Through which algorithms the layer and the gradient of its filters were computed, where the one in the first "
        "column was asked for, and the largest relative error of a filter. The gradient takes another one where its "
        "shapes do not suit it.",
        (
            *("algorithm", "problem", "forward", "gradient"),
            *(f"error, {convention}" for convention in learning.CONVENTIONS),
        ),
        tuple(rows),
    )


def crossover_table(found: Findings) -> Table:
    """Tell for each algorithm when it overtakes XLA's own convolution, and when it is the fastest and chosen."""
    rows = []
    for name, sweep in found.timings.items():
        for method in dict.fromkeys(method for each in sweep for method in each.seconds):
            run = [each for each in sweep if method in each.seconds]
            ahead = [each.taps for each in run if each.seconds[method] < each.seconds.get("xla", 0.0)]
            rows.append(
                (
                    f"{method}, {name}",
                    "" if method == "xla" else str(ahead[0]) if ahead else "never",
                    widths([each.taps for each in run if each.fastest == method]),
                    widths([each.taps for each in run if each.chosen == method]),
                )
            )
    return Table(
        "Crossovers",
        "Widths of filters, in samples: the smallest measured one at which the algorithm is faster than XLA’s own "
        "convolution, those at which it is the fastest, and those at which the planner takes it. Times vary from "
        "machine to machine.",
        ("algorithm", "faster than xla from", "fastest at", "chosen at"),
        tuple(rows),
    )


def widths(taps: list[int]) -> str:
    return ", ".join(map(str, taps)) or "none"


def timing_table(name: str, sweep: list[Timing]) -> Table:
    methods = dict.fromkeys(method for each in sweep for method in each.seconds)
    rows = [
        (
            str(each.taps),
            *(f"{1e6 * each.seconds[method]:,.0f}" if method in each.seconds else "–" for method in methods),
            each.chosen,
            f"{each.regret:.2f}",
            f"{1e6 * each.modelled:,.0f}",
        )
        for each in sweep
    ]
    return Table(
        f"Times in {name}, microseconds",
        "A dash: the algorithm cannot run it, or is modelled to take over a tenth of a second. “Factor”: the time of "
        "the planner’s choice over that of the fastest. “Modelled”: what the planner thinks its choice takes.",
        ("width", *methods, "choice", "factor", "modelled"),
        tuple(rows),
    )
