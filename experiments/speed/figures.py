"""The drawings of the page: times against the size of the kernel, and all ratios."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.speed import summary
from experiments.speed.cases import GROUPS
from experiments.speed.operations import Signal, by
from experiments.speed.peers import PEERS
from experiments.speed.records import Record, Results

# Of the series that a drawing may hold; the chosen algorithm is drawn on top of its own line.
COLORS = {
    "jax": "#c4500f",
    "scipy": "#8a6d00",
    "torch": "#6b3fa0",
    "xla": "#b3bcc6",
    "shift": "#0b8a6e",
    "toeplitz": "#1769b5",
    "overlap": "#b9318f",
    "fft": "#5b6570",
    "lags": "#7a4b12",
    "polyphase": "#3d7f1f",
}
FEWEST = 3  # sizes of the kernel that make a drawing


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A file, and what it shows in words."""

    file: str
    alt: str


def write(results: Results, folder: Path) -> list[Drawing]:
    """Draw whatever the measurements suffice for."""
    import matplotlib as mpl

    from experiments.figures import STYLE

    drawn = []
    # The page is a file beside others, which cannot follow their light or dark theme.
    style: dict[Any, Any] = {**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}
    with mpl.rc_context(style):
        for (ndim, size, dtype), records in _series(results.records):
            drawn.append(_crossover(folder, ndim, size, dtype, records))
        if any(record.ratio(*PEERS) for record in results.records):
            drawn.append(_ratios(folder, results.records))
    return drawn


def _series(records: Sequence[Record]) -> Iterator[tuple[tuple[int, tuple[int, ...], str], list[Record]]]:
    """Yield the forward records of sweeps that differ in the size of the kernel only."""
    found: dict[tuple[int, tuple[int, ...], str], list[Record]] = defaultdict(list)
    for record in summary.first_runs(records):
        case = summary.case_of(record)
        if case.source == "sweep" and record.direction == "forward" and isinstance(case.operation, Signal):
            found[len(case.operation.in1), case.operation.in1, record.dtype].append(record)
    for key, members in found.items():
        if len(members) >= FEWEST and key[2] == "float32":
            yield key, members


def _crossover(folder: Path, ndim: int, size: tuple[int, ...], dtype: str, records: Sequence[Record]) -> Drawing:
    """Draw the time of each algorithm and of each peer against the taps on an axis, the planner's choice marked."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    chosen = []
    for record in records:
        operation = summary.case_of(record).operation
        taps = operation.in2[0] if isinstance(operation, Signal) else 0
        ours = record.ours.median / 1e-3
        chosen.append((taps, ours))
        for timing in record.timings:
            name = record.algorithm if timing.library == "jaxconv" else timing.name
            if timing.library in ("own", "jaxconv") and name is not None:
                lines[name].append((taps, timing.median / 1e-3))
        for peer in PEERS:
            best = record.best(peer)
            if best is not None:
                lines[peer].append((taps, best.median / 1e-3))
    figure, axes = _figure(6.4, 3.6)
    for name, points in lines.items():
        style = "--" if name in PEERS else "-"
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, style, color=COLORS.get(name, "black"), label=summary.NAMES.get(name, name), marker=".")
    x, y = zip(*sorted(chosen), strict=True)
    axes.plot(x, y, "o", color="black", fillstyle="none", markersize=8, label="chosen by the planner")
    axes.set(xscale="log", yscale="log", xlabel="taps on each axis", ylabel="milliseconds")
    axes.set_title(f"{by(size)} samples, {dtype}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    file = f"crossover-{ndim}d-{size[0]}-{dtype}.svg"
    _save(figure, folder / file)
    return Drawing(file, f"Time against the size of the kernel for {by(size)} samples in {dtype}")


def _ratios(folder: Path, records: Sequence[Record]) -> Drawing:
    """Draw the ratio of every case against the best peer, by group."""
    groups = [group for group in GROUPS if any(summary.case_of(record).group == group for record in records)]
    figure, axes = _figure(6.4, 0.5 + 0.42 * len(groups))
    for number, group in enumerate(groups):
        mine = [record for record in summary.first_runs(records) if summary.case_of(record).group == group]
        for direction, offset, color in (("forward", 0.16, "#1769b5"), ("gradients", -0.16, "#c4500f")):
            ratios = [
                ratio
                for record in mine
                if (record.direction == "forward") == (direction == "forward")
                and (ratio := record.ratio(*PEERS)) is not None
            ]
            label = direction if number == 0 else None
            axes.plot(ratios, [number + offset] * len(ratios), "|", color=color, label=label, markersize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="time of the fastest peer over jaxconv's (right of 1: jaxconv is faster)")
    axes.set_yticks(range(len(groups)), groups)
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    _save(figure, folder / "ratios.svg")
    return Drawing("ratios.svg", "The fastest peer's time over jaxconv's in every case, by group and direction")


def _figure(width: float, height: float):
    # Not from pyplot: nothing global is kept, and no display is asked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
