"""The drawings of `experiments.identification`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from experiments.core import Figure, Panel, Table
from experiments.data import PHOTOGRAPHS, curvatures, filtered
from experiments.figures import COLORS, Picture, chart, gray_png, log_axis, scientific, signed_png, strip
from experiments.identification_layers import CONVENTIONS, LAYERS, Courses, Found
from experiments.kernels import Kernels, asymmetry, flip
from experiments.optimizers import OPTIMIZERS
from jaxconv import signal

if TYPE_CHECKING:
    from experiments.identification import Learned

# The difference of two learned kernels is magnified by this much, or there would be nothing to see.
MAGNIFICATION, MAGNIFICATION_LABEL = 1e7, "×10⁷"
CONTROLS_SHOWN = ("Gaussian", "Gabor, phase 0", "Sobel, horizontal", "Gabor, phase π/2")
APPLIED = "Gabor, phase π/4"  # the kernel that is applied to an unseen photograph
MARKERS = dict(zip(OPTIMIZERS, "os^Dv", strict=True))
STYLES = dict(zip(OPTIMIZERS, ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))), strict=True))
RAW_COLORS = {"gradient descent": COLORS["muted"], "Adam": COLORS["control"]}


def card(name: str, groups: Kernels, learned: dict[str, Learned], panel: str | None = None) -> Panel:
    """Show a kernel, what both layers learned of it from the first photograph, and the difference, one turned back."""
    kernels = {name: kernel for group in groups for name, kernel in group.items()}
    kernel, index = kernels[name], list(kernels).index(name)
    convolved, correlated = (learned[convention].kernels[0, index] for convention in ("convolution", "correlation"))
    errors = (np.linalg.norm(convolved - kernel), np.linalg.norm(correlated - flip(kernel)))
    limit = np.abs(kernel).max()
    pictures = (
        Picture(signed_png(kernel, limit), "true kernel"),
        Picture(signed_png(convolved, limit), "by convolution", f"error {scientific(errors[0])}"),
        Picture(signed_png(correlated, limit), "by correlation", f"to flip {scientific(errors[1])}"),
        Picture(signed_png(MAGNIFICATION * (flip(correlated) - convolved), limit), "difference", MAGNIFICATION_LABEL),
    )
    alt = (
        f"The kernel “{name}”, the one learned by convolution, the one learned by correlation, and the difference of "
        f"the two after turning the latter by 180 degrees, magnified {MAGNIFICATION_LABEL}."
    )
    return strip(panel or name, alt, pictures, title=name)


def gallery(groups: Kernels, learned: dict[str, Learned], photograph: str) -> Figure:
    named = [name for name in groups.asymmetric if not name.startswith("random")]
    shown = (*named, *list(groups.asymmetric)[len(named) : len(named) + 3], *CONTROLS_SHOWN)
    return Figure(
        "gallery",
        "What the layers learned",
        f"All from the photograph “{photograph}”. Green is positive, magenta negative, the page’s own colour zero; "
        "the first three pictures of a card share a scale. Convolution recovers the kernel as it is, correlation "
        "recovers it turned by 180°. “Difference” is what remains between the two after turning the latter back, "
        f"magnified {MAGNIFICATION_LABEL}: rounding. The last four kernels are controls: two that equal their flip, "
        "where both layers learn the same, and two whose flip is their negative, where the colours are exchanged.",
        tuple(card(name, groups, learned) for name in shown),
    )


def orientation(groups: Kernels, learned: dict[str, Learned]) -> Figure:
    alt = (
        "Scatter plot, one point for each kernel. Horizontal: relative distance between the kernel and its flip, 0 "
        "to 2. Vertical: relative distance of the learned kernel from the true one. Kernels learned by convolution "
        "lie at zero, those learned by correlation on the diagonal."
    )
    kernels = np.stack([kernel for group in groups for kernel in group.values()])
    spread = [asymmetry(kernel) for kernel in kernels]
    with chart("scatter", alt, (3.9, 3.0)) as (axes, scatter):
        axes.plot([0, 2], [0, 2], color=COLORS["line"], linewidth=1)
        for convention, marker in (("correlation", "o"), ("convolution", "s")):
            distance = np.linalg.norm(learned[convention].kernels - kernels, axis=(-2, -1)).mean(0)
            style = {"marker": marker, "label": f"learned by {convention}", "alpha": 0.8, "clip_on": False}
            axes.scatter(spread, distance, 20, COLORS[convention], zorder=3, linewidths=0, **style)
        axes.set_xticks([0, 0.5, 1, 1.5, 2])
        axes.set_yticks([0, 0.5, 1, 1.5, 2])
        axes.set_xlabel("‖k − flip k‖ / ‖k‖")
        axes.set_ylabel("‖learned − k‖ / ‖k‖")
        axes.legend(loc="upper left")
    alt = (
        "Distances during learning for both layers: to the kernel that each should find they fall to zero, to its "
        "flip they level off well above zero."
    )
    with chart("distances", alt, (3.9, 3.0)) as (axes, distances):
        part = slice(len(groups.asymmetric))
        for convention, style in (("convolution", "-"), ("correlation", (0, (3, 3)))):
            for which in ("right", "wrong"):
                values = getattr(learned[convention], which)[..., part]
                band(axes, values, COLORS[convention], style, label=convention if which == "right" else None)
        axes.set_ylim(0, 2.2)
        axes.text(40, 1.66, "from the wrong way round", ha="right", color=COLORS["muted"], fontsize=8)
        axes.text(40, 0.06, "from the right way round", ha="right", color=COLORS["muted"], fontsize=8)
        axes.set_xlabel("gradient step")
        axes.set_ylabel("relative distance of the kernel")
        axes.legend(loc="upper right", ncols=2)
    return Figure(
        "orientation",
        "The two differ by exactly what the flip changes",
        "First: each kernel, averaged over the photographs. What correlation learns is as far from the true kernel "
        "as the kernel is from its own flip: not at all for symmetric kernels (0), about √2 for random ones, twice "
        "its norm for antisymmetric ones (2). Second: distances during learning, for all asymmetric kernels on all "
        "photographs (line: median; band: smallest to largest; the two conventions coincide). Each layer goes to "
        "its own orientation and keeps away from the other.",
        (scatter.panel, distances.panel),
        width=400,
    )


def convergence(groups: Kernels, learned: dict[str, Learned], raw: dict[tuple[str, str], Learned]) -> Figure:
    panels = []
    for convention, result in learned.items():
        alt = (
            f"Relative error against gradient steps, both logarithmic, for {convention}: with whitening it falls to "
            "rounding error within about 20 steps; without, plain gradient descent and Adam remain far above."
        )
        with chart(f"by-{convention}", alt, (3.9, 3.0)) as (axes, drawn):
            whitened = result.right[..., : len(groups.asymmetric)]
            band(axes, whitened, COLORS[convention], "-", label="gradient descent, whitened")
            for (name, color), style in zip(RAW_COLORS.items(), ("--", "-."), strict=True):
                band(axes, raw[convention, name].right, color, style, label=f"{name}, as it is")
            axes.set_xscale("log")
            axes.set_yscale("log")
            log_axis(axes.xaxis)
            log_axis(axes.yaxis)
            axes.set_title(f"by {convention}")
            axes.set_xlabel("gradient step")
            axes.set_ylabel("relative error of the kernel")
            axes.legend(loc="center right", fontsize=8)
        panels.append(drawn.panel)
    return Figure(
        "convergence",
        "With and without whitening",
        "Relative distance from the kernel that each convention should find (line: median over kernels and "
        "photographs; band: smallest to largest). Whitened on both sides, the problem is so well conditioned that "
        "plain gradient descent needs some twenty steps. On the photograph “gravel” as it is, neither it nor Adam has "
        "arrived after a thousand. The optimisers differ; the two conventions do not.",
        tuple(panels),
        width=400,
    )


def band(axes: Axes, values: np.ndarray, color: str, style: object, label: str | None) -> None:
    """Draw the median and the range, over all but the first axis, against steps counted from 1."""
    flat = values.reshape(len(values), -1)
    steps = np.arange(1, len(flat) + 1)
    axes.plot(steps, np.median(flat, 1), linestyle=style, color=color, label=label)
    axes.fill_between(steps, flat.min(1), flat.max(1), color=color, alpha=0.13, linewidth=0)


def views(
    photographs: dict[str, np.ndarray], whitened: np.ndarray, groups: Kernels, learned: dict[str, Learned]
) -> Figure:
    """Show what a layer learns from, and what the learned kernel does to a photograph that it has not seen."""
    first, *_, last = photographs
    true = groups.asymmetric[APPLIED]
    index = list(groups.asymmetric).index(APPLIED)
    seen, unseen = photographs[first], photographs[last]
    clipped = [np.clip(image / image.std(), -3, 3) for image in (whitened, filtered(whitened, true))]
    pair = (
        photo(seen, "photograph", first),
        photo(filtered(seen, true), "its filtered copy", "by SciPy"),
        photo(clipped[0], "whitened", "input"),
        photo(clipped[1], "whitened", "target"),
    )
    kernel = learned["correlation"].kernels[0, index]
    truth = filtered(unseen, true)
    limits = (truth.min(), truth.max())
    tests = [photo(unseen, "unseen", last), photo(truth, "true kernel", "by SciPy")]
    for operation, label in ((signal.correlate, "learned kernel"), (signal.convolve, "exchanged")):
        output = np.asarray(operation(unseen.astype(kernel.dtype), kernel, mode="valid"))
        error = np.linalg.norm(output - truth) / np.linalg.norm(truth)
        tests.append(photo(output, label, f"error {scientific(error)}", limits))
    return Figure(
        "photographs",
        "What a layer sees, and what its kernel does elsewhere",
        f"First: the pair from which the kernel “{APPLIED}” is learned, as it is and whitened. Second: the kernel "
        f"learned from it by correlation is applied to the photograph “{last}”, which is not whitened and had no "
        "part in the learning. Used by correlation, it does what the true kernel does by convolution. Used by "
        "convolution, it lights the scene from the wrong side.",
        (
            strip("pair", "A photograph and its filtered copy, and both whitened.", pair, side=100),
            strip(
                "unseen",
                "An unseen photograph, filtered with the true kernel, with the learned one (the same picture), and "
                "with the learned one by the other operation (a different picture).",
                tests,
                side=100,
            ),
        ),
        width=440,
    )


def photo(image: np.ndarray, label: str, note: str, limits: tuple[float, float] | None = None) -> Picture:
    low, high = limits or (image.min(), image.max())
    return Picture(gray_png(image, low, high), label, note, pixelated=False)


def conditioning(
    photographs: dict[str, np.ndarray], whitened: np.ndarray, groups: Kernels, learned: dict[str, Learned]
) -> Table:
    part = slice(len(groups.asymmetric))
    rows = []
    for index, (name, image) in enumerate(photographs.items()):
        spectra = [curvatures(side, 9) for side in (image, whitened[index])]
        errors = [learned[convention].right[-1, index, part].max() for convention in ("convolution", "correlation")]
        nearest = min(result.wrong[-1, index, part].min() for result in learned.values())
        numbers = [*(values[-1] / values[0] for values in spectra), *errors, nearest]
        rows.append((name, *map(scientific, numbers)))
    sources = "; ".join(f"“{name}”: {PHOTOGRAPHS[name].credit}" for name in photographs)
    return Table(
        "Photograph by photograph",
        "κ is the condition number of the least-squares problem (largest over smallest curvature). The errors are "
        "the largest relative ones over the asymmetric kernels, by convolution to the kernel and by correlation to "
        "its flip; the last column is the smallest relative distance from the wrong orientation. Photographs: "
        f"{sources}.",
        ("photograph", "κ", "κ whitened", "error, convolution", "error, correlation", "from the wrong one"),
        tuple(rows),
    )


def layers(found: Found) -> Figure:
    """Show where every layer arrived under every optimiser, and how each optimiser got there."""
    alt = (
        "For each layer, distances on a logarithmic axis: to its own kernels all lie below 10⁻³, to the flipped ones "
        "all lie above 1, under both conventions and all optimisers."
    )
    with chart("layers", alt, (5.2, 3.4)) as (axes, arrived):
        for row, pair in enumerate(found.values()):
            for offset, convention in ((-0.16, "convolution"), (0.16, "correlation")):
                for index, optimizer in enumerate(OPTIMIZERS):
                    for distances, filled in (
                        (pair[convention].right[-1].max(0), True),
                        (_nearest(pair[convention]), False),
                    ):
                        axes.plot(
                            distances[index],
                            row + offset,
                            MARKERS[optimizer],
                            color=COLORS[convention],
                            markerfacecolor=COLORS[convention] if filled else "none",
                            markersize=4,
                        )
        for optimizer, marker in MARKERS.items():
            axes.plot([], [], marker, color=COLORS["muted"], markersize=4, label=optimizer)
        axes.set_xscale("log")
        log_axis(axes.xaxis)
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()
        axes.set_xlabel("relative distance of the learned kernels")
        axes.figure.legend(loc="outside upper left", ncols=len(OPTIMIZERS), columnspacing=1, handletextpad=0)
    panels = [arrived.panel]
    for convention in CONVENTIONS:
        alt = f"Relative error against steps for each optimiser by {convention}: all fall below 10⁻³, plain SGD first."
        with chart(f"optimisers-{convention}", alt, (3.9, 3.4)) as (axes, drawn):
            for index, optimizer in enumerate(OPTIMIZERS):
                errors = np.stack([pair[convention].right[..., index] for pair in found.values()], -1)
                band(axes, errors, COLORS[convention], STYLES[optimizer], label=optimizer)
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.set_title(f"by {convention}")
            axes.set_xlabel("step")
            axes.set_ylabel("relative error of the kernels")
            axes.figure.legend(loc="outside upper left", ncols=3)
        panels.append(drawn.panel)
    return Figure(
        "layers",
        "Signals and volumes, channels, strides, dilation, and five optimisers",
        "First: for each layer, how far the learned kernels are from those that the convention should find (filled; "
        "the farthest of all kernels) and from their flips (hollow; the nearest), for convolution (blue, above) and "
        "correlation (orange, below). Then: the errors during learning under each optimiser (line: median over layers "
        "and kernels; band: smallest to largest). The optimisers take different ways; all arrive at the same place.",
        tuple(panels),
        width=420,
    )


def _nearest(courses: Courses) -> np.ndarray:
    """Return the least distance from the wrong way round, but for the symmetric kernel, for each optimiser."""
    return courses.wrong[-1][:-1].min(0)


def shapes(found: Found) -> Table:
    rows = []
    for layer in LAYERS:
        if pair := found.get(layer.name):
            *space, inputs, outputs = layer.kernel
            errors = [scientific(courses.right[-1].max()) for courses in pair.values()]
            nearest = min(_nearest(courses).min() for courses in pair.values())
            kernel = f"{'×'.join(map(str, space))}, {inputs} → {outputs}"
            rows.append((layer.name, kernel, *errors, scientific(nearest)))
    return Table(
        "Layer by layer",
        "Kernels: their taps, and the channels in and out. The errors are the largest relative ones over all kernels "
        "and optimisers; the last column is the smallest relative distance from the wrong orientation. The signals are "
        "matplotlib’s sample data, the photographs “Chelsea the cat” (Stéfan van der Walt) and “coffee” (Rachel "
        "Michetti), the volumes made.",
        ("layer", "kernel", "error, convolution", "error, correlation", "from the wrong one"),
        tuple(rows),
    )
