"""The drawings of `experiments.twins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.core import Figure, Panel, Table
from experiments.figures import COLORS, Picture, chart, log_axis, scientific, signed_png, strip
from experiments.school import OPTIMIZERS

if TYPE_CHECKING:
    from experiments.twins import Findings

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
    mine, theirs = (pictures[OPTIMIZERS.index(optimizer)] for pictures in found.pictures)
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
        tuple(card(optimizer, found) for optimizer in OPTIMIZERS),
    )


def drifts(found: Findings) -> Figure:
    panels = []
    for index, optimizer in enumerate(OPTIMIZERS):
        alt = (
            f"Relative difference of the filters against steps, logarithmic, under {optimizer}: twins in float64 "
            "near 1e-15; twins and disturbed reruns in float32 together at 1e-7, some rising to 1e-2; the unflipped "
            "start near 1."
        )
        groups = (
            ("unflipped start, float64", [found.unflipped], COLORS["control"], "-"),
            ("disturbed reruns, float32", found.disturbed, COLORS["muted"], "-"),
            ("twins, float32", found.twins["float32"].values(), COLORS["correlation"], "-"),
            ("twins, float64", found.twins["float64"].values(), COLORS["convolution"], "-"),
            ("plain Flax, float64", [found.plain], COLORS["plain"], ":"),
        )
        with chart(optimizer, alt, (3.6, 3.2)) as (axes, drawn):
            for label, members, color, style in groups:
                curves = np.concatenate([member.drift.max(0)[..., index] for member in members], axis=1)
                steps = np.arange(1, len(curves) + 1)
                lines = axes.plot(steps, np.maximum(curves, FLOOR), style, color=color, linewidth=1, alpha=0.8)
                lines[0].set_label(label)
            axes.set_yscale("log")
            axes.set_ylim(FLOOR, 30)
            log_axis(axes.yaxis)
            axes.set_title(optimizer)
            axes.set_xlabel("step")
            axes.set_ylabel("relative difference of the filters")
            if index == 0:
                axes.legend(loc="center right", bbox_to_anchor=(1, 0.33), fontsize=7)
        panels.append(drawn.panel)
    return Figure(
        "drifts",
        "How far the twins drift apart",
        "Relative difference between the filters of a network and those of the correlation network, in the layer "
        "where it is larger, one line for each seed and algorithm (convolution networks after flipping their "
        "filters; “unflipped start” without). In float64 twins stay at rounding level. In float32 they drift as far "
        "as a network drifts from itself when its start is changed in the last place: where a line leaps, a "
        "rectifier or a maximum was decided by rounding. Exact equality is drawn at 10⁻¹⁷.",
        tuple(panels),
        width=330,
    )


def losses(found: Findings) -> Figure:
    panels = []
    twin = next(iter(found.twins["float64"].values()))
    for index, optimizer in enumerate(OPTIMIZERS):
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
        with chart(f"loss-{optimizer}", alt, (3.6, 2.9)) as (axes, drawn):
            for label, member, color, style, width, alpha in curves:
                style_of = {"color": color, "linestyle": style, "linewidth": width, "alpha": alpha}
                axes.plot(member.losses[:, 0, index], label=label, **style_of)
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.set_title(optimizer)
            axes.set_xlabel("step")
            axes.set_ylabel("cross-entropy of the batch (nats)")
            if index == 0:
                axes.legend(loc="upper right", fontsize=7)
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


def table(found: Findings) -> Table:
    names = list(found.twins["float64"])
    rows = []
    for index, optimizer in enumerate(OPTIMIZERS):

        def largest(members: list, index: int = index) -> np.ndarray:
            return np.stack([member.drift[..., index].max((0, 1)) for member in members])

        single, disturbed = largest(list(found.twins["float32"].values())), largest(found.disturbed)
        rows.append(
            (
                optimizer,
                *(f"{100 * each.accuracy[:, index].mean():.1f}%" for each in (found.reference, found.unflipped)),
                scientific(max(twin.gap[..., index].max() for twin in found.twins["float64"].values())),
                scientific(largest(list(found.twins["float64"].values())).max()),
                *(
                    scientific(value)
                    for value in (np.median(single), np.median(disturbed), single.max(), disturbed.max())
                ),
            )
        )
    return Table(
        "Optimiser by optimiser",
        f"Twins: {', '.join(names)}. Accuracy on 360 test digits, mean over seeds; that of the twins equals the "
        "correlation network’s digit by digit. Differences of losses (nats) and of filters (relative) are the "
        "largest of all steps, seeds and twins; in float32, medians and maxima over runs of the largest of all "
        "steps.",
        (
            "optimiser",
            "accuracy",
            "… unflipped start",
            "losses, float64",
            "filters, float64",
            "float32 median",
            "… rerun",
            "float32 largest",
            "… rerun",
        ),
        tuple(rows),
    )
