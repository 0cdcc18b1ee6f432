"""Drawings as SVG that follows the page's colours, so that one drawing serves light and dark, screen and file.

Colours are CSS variables with the light theme as their default: inside the report the page's style sheet sets them, and
a file opened on its own shows the defaults.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as MplFigure
from matplotlib.image import imsave
from matplotlib.ticker import FuncFormatter, LogLocator

from experiments.core import Panel, slug

# The light theme. report.css gives the same names their dark values.
COLORS = {
    "ink": "#1c2127",
    "muted": "#5b6570",
    "line": "#d5dae0",
    "convolution": "#1769b5",
    "correlation": "#c4500f",
    "plain": "#6b3fa0",
    "control": "#8a6d00",
}
POSITIVE, NEGATIVE = (11, 138, 110), (190, 60, 150)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: selectable, sharp, in the page's own typeface
    "svg.hashsalt": "experiments",  # the same drawing gives the same file
    "font.family": "DejaVu Sans",  # wide; what is measured with it has room in any other
    "font.size": 9,
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["ink"],
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.6,
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def scientific(value: float | np.floating) -> str:
    """Write a number for people, with three digits or in powers of ten: 0.0837, −1.00, 22,301 or 3.2×10⁻⁷."""
    if value == 0:
        return "0"
    if value < 0:
        return f"−{scientific(-value)}"
    if 1e-3 <= value < 1e5:
        return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if mantissa == "1.0" else f"{mantissa}×{power}"


def log_axis(axis: Axis) -> None:
    """Label the powers of ten of a logarithmic axis in plain text."""
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"10{str(round(np.log10(value))).translate(SUPERSCRIPTS)}"))
    axis.set_minor_locator(LogLocator(subs=(), numticks=7))


def legend_above(axes: Axes, columns: int = 2) -> None:
    """Set the legend above the plot, where it covers nothing, and the title above the legend."""
    title = axes.get_title("left")
    axes.set_title("", loc="left")
    axes.figure.legend(loc="outside upper left", ncols=columns, title=title, alignment="left", fontsize=7)


class Chart:
    """Holds the panel that `chart` has drawn once its block has ended."""

    panel: Panel


@contextmanager
def chart(name: str, alt: str, size: tuple[float, float] = (3.6, 2.7)) -> Iterator[tuple[Axes, Chart]]:
    """Draw with matplotlib: `with chart(name, alt) as (axes, drawn): ...`, then take `drawn.panel`."""
    drawn = Chart()
    with mpl.rc_context(STYLE):
        # Not from pyplot: nothing global is kept, and no display is asked for.
        figure = MplFigure(figsize=size, layout="constrained")
        yield figure.add_subplot(), drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn.panel = Panel(name, themed(buffer.getvalue(), slug(name)), alt)


def themed(svg: str, prefix: str) -> str:
    """Turn a drawing with the light theme's colours into one that follows the page, with ids that are its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name}, {color})")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    return re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)


def signed_png(array: np.ndarray, limit: float) -> bytes:
    """Paint a kernel: hue by sign, opacity by magnitude, so that zero is the page itself, light or dark."""
    scaled = np.clip(np.asarray(array, float) / limit, -1, 1)
    pixels = np.empty((*scaled.shape, 4), np.uint8)
    pixels[..., :3] = np.where(scaled[..., None] >= 0, POSITIVE, NEGATIVE)
    pixels[..., 3] = np.round(255 * np.abs(scaled))
    return png(pixels)


def gray_png(array: np.ndarray, low: float, high: float) -> bytes:
    """Paint a photograph, black at `low` and white at `high`."""
    gray = np.round(255 * np.clip((array - low) / (high - low), 0, 1)).astype(np.uint8)
    return png(np.repeat(gray[..., None], 3, -1))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png")
    return buffer.getvalue()


@dataclass(frozen=True)
class Picture:
    """A small image with a line above it and one below."""

    png: bytes
    label: str
    note: str = ""
    pixelated: bool = True


def strip(
    name: str,
    alt: str,
    pictures: Sequence[Picture],
    *,
    title: str = "",
    side: int = 78,
    gap: int = 9,
    columns: int = 99,
) -> Panel:
    """Set pictures in rows of `columns`, each `side` units square, under a common title."""
    top, columns = 20 if title else 0, min(columns, len(pictures))
    above, below = 16, 20
    width = columns * (side + gap) - gap + 2
    height = top + -(-len(pictures) // columns) * (above + side + below)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ]
    if title:
        parts.append(_text(1, 13, title, 12, "ink", weight=600))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x, y = 1 + column * (side + gap), top + row * (above + side + below) + above
        rendering = ' class="pixels" style="image-rendering:pixelated"' if picture.pixelated else ""
        data = base64.b64encode(picture.png).decode()
        parts += [
            _text(x, y - 5, picture.label, 10.5, "muted"),
            f'<image x="{x}" y="{y}" width="{side}" height="{side}" preserveAspectRatio="none"{rendering} '
            f'href="data:image/png;base64,{data}"/>',
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" style="fill:none;stroke:{_color("line")}"/>',
            _text(x, y + side + 12, picture.note, 10, "ink") if picture.note else "",
        ]
    return Panel(name, "".join([*parts, "</svg>"]), alt)


def _color(name: str) -> str:
    return f"var(--{name}, {COLORS[name]})"


def _text(x: float, y: float, text: str, size: float, color: str, weight: int = 400) -> str:
    style = f"font:{weight} {size}px system-ui,sans-serif;fill:{_color(color)}"
    return f'<text x="{x}" y="{y}" style="{style}">{escape(text)}</text>'
