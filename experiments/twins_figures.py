"""The drawings of `experiments.twins`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.core import Figure, Panel, Table
from experiments.figures import COLORS, Picture, chart, legend_above, log_axis, scientific, signed_png, strip
from experiments.school import Comparison
from experiments.twins_layers import OPTIMIZERS, Pair

if TYPE_CHECKING:
    from experiments.twins import Findings, Rivals

MAGNIFICATION, MAGNIFICATION_LABEL = 1e15, "×10¹⁵"
FLOOR = 1e-17  # where a difference of exactly zero is drawn


def mosaic(filters: np.ndarray, rows: int = 3, columns: int = 3) -> np.ndarray:
    """Lay the first filters of [height, width, 1, outputs] side by side, with a pixel of nothing between them."""
    height, width = filters.shape[:2]
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1))
    for index in range(min(rows * columns, filters.shape[-1])):
        top, left = (height + 1) * (index // columns), (width + 1) * (index % columns)
        sheet[top : top + height, left : left + width] = filters[:, :, 0, index]
    return sheet


def card(optimizer: str, found: Findings, panel: str | None = None) -> Panel:
    """Show the first layers of a trained pair, the second as it is and turned back, and the difference."""
    mine, theirs = (pictures[found.optimizers.index(optimizer)] for pictures in found.pictures)
    turned = theirs[::-1, ::-1]
    limit = np.abs(mine).max()
    pictures = (
        Picture(signed_png(mosaic(mine), limit), "correlation"),
        Picture(signed_png(mosaic(theirs), limit), "convolution"),
        Picture(signed_png(mosaic(turned), limit), "… each turned"),
        Picture(signed_png(MAGNIFICATION * mosaic(turned - mine), limit), "difference", MAGNIFICATION_LABEL),
    )
    alt = (
        f"Nine 3 by 3 filters of the first layer after training with {optimizer}: of the correlation network, "
        "of the convolution network, of the latter each turned by 180 degrees, where they equal the first, and the "
        "difference."
    )
    return strip(panel or optimizer, alt, pictures, title=f"first-layer filters, {optimizer}")


def filters(found: Findings) -> Figure:
    return Figure(
        "filters",
        "The filters, side by side",
        "Nine of the sixteen 3×3 filters of the first layer at the end of training in float64 (first seed; green "
        "positive, magenta negative). Turn each of the convolution network’s filters by 180° where it stands, and "
        f"the correlation network’s appear; what differs is rounding, magnified {MAGNIFICATION_LABEL}.",
        tuple(card(optimizer, found) for optimizer in found.optimizers),
    )


def draw(found: Findings) -> tuple[Figure, ...]:
    rounding = (kinks(found.optimizers, found.kinked),) if found.kinked else ()
    return (filters(found), losses(found), drifts(found), *rounding, shapes(found.shapes))


def drift_panels(
    prefix: str,
    optimizers: Sequence[str],
    alt: str,
    groups: Sequence[tuple[str, Iterable[Comparison], str, str]],
) -> tuple[Panel, ...]:
    """Draw drifts against steps, a panel for each optimiser, a line for each member and seed."""
    panels = []
    for index, optimizer in enumerate(optimizers):
        with chart(f"{prefix}-{optimizer}", f"{optimizer}: {alt}", (3.6, 3.7)) as (axes, drawn):
            for label, members, color, style in groups:
                curves = np.concatenate([member.drift.max(0)[..., index] for member in members], axis=1)
                steps = np.arange(1, len(curves) + 1)
                lines = axes.plot(steps, np.maximum(curves, FLOOR), style, color=color, linewidth=1, alpha=0.8)
                lines[0].set_label(label)
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.set_title(optimizer)
            axes.set_xlabel("step")
            axes.set_ylabel("relative difference of the filters")
            legend_above(axes)
        panels.append(drawn.panel)
    return tuple(panels)


def drifts(found: Findings) -> Figure:
    groups = (
        ("unflipped start, float64", [found.unflipped], COLORS["control"], "-"),
        ("reruns, float32", found.smooth.reruns, COLORS["muted"], "-"),
        ("twins, float32", found.smooth.twins.values(), COLORS["correlation"], "--"),
        ("twins, float64", found.twins.values(), COLORS["convolution"], "-"),
        ("plain Flax, float64", [found.plain], COLORS["plain"], ":"),
    )
    alt = (
        "relative difference of the filters against steps, logarithmic. Twins in float64 stay near 1e-15, twins and "
        "disturbed reruns in float32 rise together to some 1e-7, the unflipped start is near 1."
    )
    return Figure(
        "drifts",
        "How far the twins drift apart",
        "Relative difference between the filters of a network and those of the correlation network, in the layer "
        "where it is larger; a line for each seed and algorithm. Convolution networks are compared after flipping "
        "their filters, the unflipped start without. In float64 twins stay at rounding level. In float32 (networks "
        "without kinks) they drift as far as the correlation network drifts from its own reruns, started "
        "one unit in the last place away. Equality is drawn at 10⁻¹⁷.",
        drift_panels("drift", found.optimizers, alt, groups),
        width=330,
    )


def kinks(optimizers: Sequence[str], kinked: Rivals) -> Figure:
    groups = (
        ("reruns", kinked.reruns, COLORS["muted"], "-"),
        ("twins", kinked.twins.values(), COLORS["correlation"], "-"),
    )
    alt = (
        "relative difference of the filters in float32 against steps, logarithmic. Most lines stay near 1e-6; some, "
        "of twins and of reruns alike, leap to between 1e-5 and 1e-1 at one step."
    )
    return Figure(
        "kinks",
        "Where rounding decides: float32 with rectifiers and maxima",
        "The same in float32 for the networks as they are. A line leaps where a rectifier or a maximum is decided "
        "by the last bit. That happens to twins and to reruns of one and the same network alike, often at the same "
        "step, and has nothing to do with the flip.",
        drift_panels("kinks", optimizers, alt, groups),
        width=330,
    )


def losses(found: Findings) -> Figure:
    panels = []
    twin = next(iter(found.twins.values()))
    for index, optimizer in enumerate(found.optimizers):
        alt = (
            f"Training loss against steps under {optimizer}: the curves of the correlation network, its convolution "
            "twin and the plain Flax network lie on one another; that of the unflipped start does not."
        )
        curves = (
            ("correlation", found.reference, COLORS["correlation"], "-", 5.0, 0.4),
            ("convolution, unflipped start", found.unflipped, COLORS["control"], "-", 0.7, 0.9),
            ("convolution, flipped start", twin, COLORS["convolution"], "-", 1.3, 1.0),
            ("plain Flax", found.plain, COLORS["ink"], (0, (1, 2)), 1.3, 1.0),
        )
        with chart(f"loss-{optimizer}", alt, (3.6, 3.4)) as (axes, drawn):
            for label, member, color, style, width, alpha in curves:
                style_of = {"color": color, "linestyle": style, "linewidth": width, "alpha": alpha}
                axes.plot(member.losses[:, 0, index], label=label, **style_of)
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.set_title(optimizer)
            axes.set_xlabel("step")
            axes.set_ylabel("cross-entropy of the batch (nats)")
            legend_above(axes)
        panels.append(drawn.panel)
    return Figure(
        "losses",
        "The same loss at every step",
        "Training loss in float64, first seed. The correlation network (wide), its convolution twin and the plain "
        "Flax network lie on one another down to the last wiggle. The control, a convolution network that starts "
        "from the same filters without flipping them, computes another function from the first step on: it learns "
        "as well, but something else.",
        tuple(panels),
        width=330,
    )


def shapes(found: dict[str, Pair]) -> Figure:
    panels = []
    for name, pair in found.items():
        alt = (
            f"Network for the {name}: relative difference of the filters against steps, logarithmic. The twins stay "
            "near 1e-15 under every optimiser, the unflipped start is near 1."
        )
        with chart(f"shape-{name}", alt, (3.6, 3.4)) as (axes, drawn):
            for label, member, color in (
                ("unflipped start", pair.unflipped, COLORS["control"]),
                ("twin", pair.twin, COLORS["convolution"]),
            ):
                for index, optimizer in enumerate(OPTIMIZERS):
                    curve = np.maximum(member.drift.max(0)[:, 0, index], FLOOR)
                    axes.plot(curve, ("-", "--", ":")[index], color=color, linewidth=1, label=f"{label}, {optimizer}")
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.set_title(name)
            axes.set_xlabel("step")
            axes.set_ylabel("relative difference of the filters")
            legend_above(axes)
        panels.append(drawn.panel)
    return Figure(
        "shapes",
        "Signals, many channels, volumes; strides and dilation",
        "The same in float64 for networks of other shapes, each with a strided and a dilated layer, in the layer where "
        "the difference is larger. Twins are compared after flipping their filters along every axis they have, the "
        "unflipped start without. Equality is drawn at 10⁻¹⁷.",
        tuple(panels),
        width=330,
    )


def tables(found: Findings) -> tuple[Table, ...]:
    columns = ("optimiser", "accuracy", "… unflipped start", "losses", "filters")
    caption = (
        f"Twins: {', '.join(found.twins)}. Accuracy on {len(found.reference.accuracy)} seeds of 360 test digits, "
        "which the twins answer exactly as the correlation network does. Then the largest difference over all "
        "twins, seeds and steps: of the losses (nats), and of the filters (relative)."
    )
    exact, single = [], []
    for index, optimizer in enumerate(found.optimizers):
        accuracies = (f"{100 * each.accuracy[:, index].mean():.1f}%" for each in (found.reference, found.unflipped))
        gap = max(twin.gap[..., index].max() for twin in found.twins.values())
        drift = max(twin.drift[..., index].max() for twin in found.twins.values())
        exact.append((optimizer, *accuracies, scientific(gap), scientific(drift)))
        numbers = [found.smooth.ratios()[..., index].max()]
        if found.kinked:
            groups = [drifts[..., index] for drifts in found.kinked.drifts()]
            numbers += [pick(group) for pick in (np.median, np.max) for group in groups]
        single.append((optimizer, *map(scientific, numbers)))
    kinked = ("kinks: median", "… of reruns", "largest", "… of reruns") if found.kinked else ()
    return (
        Table("Optimiser by optimiser, in float64", caption, columns, tuple(exact)),
        Table(
            "Optimiser by optimiser, in float32",
            "Without kinks, the twins’ largest drift over that of the reruns."
            + (" With kinks, medians and maxima over runs of the largest drift." if found.kinked else ""),
            ("optimiser", "twins ÷ reruns", *kinked),
            tuple(single),
        ),
    )
